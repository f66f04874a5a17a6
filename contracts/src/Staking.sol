// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

import {Coins} from "./Coins.sol";
import {IStaking} from "./interfaces/IStaking.sol";

/// @title Stakes of operators
/// @notice Immutable. The court is the address that the deployer will create next: it is passed here before it exists, and the
/// court refuses to be created anywhere else. coin.balanceOf(this) >= sum(stake + unbonding) at all times. Any plain ERC-20 will
/// do as coin.
contract Staking is EIP712, IStaking {
    using Checkpoints for Checkpoints.Trace160;
    using Coins for IERC20;
    using SafeERC20 for IERC20;

    bytes32 public constant STAKE_CONSENT_TYPEHASH = keccak256("StakeConsent(address owner)");

    IERC20 public immutable coin;
    address public immutable court;
    uint96 public immutable minStake;
    uint40 public immutable cooldown;

    mapping(address operator => Operator) private _operators;
    /// @dev The list of active operators with its whole past: how long it was, and who was at which place, by the second.
    Checkpoints.Trace160 private _count;
    mapping(uint256 place => Checkpoints.Trace160) private _places;

    modifier onlyCourt() {
        require(msg.sender == court, NotCourt(msg.sender));
        _;
    }

    constructor(IERC20 coin_, address court_, uint96 minStake_, uint40 cooldown_) EIP712("Lading", "1") {
        require(address(coin_) != address(0) && court_ != address(0), ZeroAddress());
        require(minStake_ != 0, ZeroAmount());
        require(cooldown_ <= 365 days, CooldownTooLong());
        coin = coin_;
        court = court_;
        minStake = minStake_;
        cooldown = cooldown_;
    }

    /// @inheritdoc IStaking
    function stake(address operator, uint96 amount, bytes calldata consent) external {
        require(amount != 0, ZeroAmount());
        require(operator != address(0), ZeroAddress());
        Operator storage op = _operators[operator];
        if (op.owner == address(0)) {
            if (msg.sender != operator) {
                bool consents = ECDSA.recoverCalldata(stakeConsentDigest(msg.sender), consent) == operator;
                require(consents, BadConsent(operator));
            }
            op.owner = msg.sender;
            op.ownedSince = SafeCast.toUint32(block.timestamp);
        } else {
            require(op.owner == msg.sender, NotOwner(msg.sender));
        }
        op.stake += amount;
        emit Staked(operator, msg.sender, amount, op.stake);
        _relist(operator, op);
        coin.pull(msg.sender, amount);
    }

    /// @inheritdoc IStaking
    function requestUnstake(address operator, uint96 amount) external {
        Operator storage op = _operators[operator];
        require(op.owner == msg.sender, NotOwner(msg.sender));
        require(amount != 0, ZeroAmount());
        require(amount <= op.stake, OverStake(op.stake));
        op.stake -= amount;
        op.unbonding += amount;
        op.unlockAt = uint40(block.timestamp) + cooldown;
        emit UnstakeRequested(operator, amount, op.unlockAt);
        _relist(operator, op);
    }

    /// @inheritdoc IStaking
    function finishUnstake(address operator) external {
        Operator storage op = _operators[operator];
        uint96 amount = op.unbonding;
        require(amount != 0, NothingUnbonding());
        require(block.timestamp >= op.unlockAt, TooEarly(op.unlockAt));
        require(op.openDisputes == 0, DisputeOpen(op.openDisputes));
        op.unbonding = 0;
        emit Unstaked(operator, op.owner, amount);
        coin.safeTransfer(op.owner, amount);
    }

    /// @inheritdoc IStaking
    function unjail(address operator) external {
        Operator storage op = _operators[operator];
        require(block.timestamp >= op.jailedUntil, TooEarly(op.jailedUntil));
        require(op.stake >= minStake, NotActive(operator));
        _relist(operator, op);
    }

    /// @inheritdoc IStaking
    function slash(address operator, uint256 amount, uint256 burnt) external onlyCourt {
        Operator storage op = _operators[operator];
        uint256 fromStake = amount < op.stake ? amount : op.stake;
        op.stake -= uint96(fromStake);
        op.unbonding -= SafeCast.toUint96(amount - fromStake);
        emit Slashed(operator, amount, burnt);
        _relist(operator, op);
        coin.destroy(burnt);
        if (amount != burnt) coin.safeTransfer(court, amount - burnt);
    }

    /// @inheritdoc IStaking
    function jail(address operator, uint40 until) external onlyCourt {
        Operator storage op = _operators[operator];
        if (until > op.jailedUntil) op.jailedUntil = until;
        emit Jailed(operator, op.jailedUntil);
        _relist(operator, op);
    }

    /// @inheritdoc IStaking
    function openDispute(address operator) external onlyCourt {
        ++_operators[operator].openDisputes;
    }

    /// @inheritdoc IStaking
    function closeDispute(address operator) external onlyCourt {
        --_operators[operator].openDisputes;
    }

    /// @inheritdoc IStaking
    function operators(address operator)
        external
        view
        returns (
            address owner,
            uint96 stake_,
            uint96 unbonding,
            uint40 unlockAt,
            uint40 jailedUntil,
            uint24 openDisputes
        )
    {
        Operator storage op = _operators[operator];
        return (op.owner, op.stake, op.unbonding, op.unlockAt, op.jailedUntil, op.openDisputes);
    }

    /// @inheritdoc IStaking
    function ownerOf(address operator) external view returns (address) {
        return _operators[operator].owner;
    }

    /// @inheritdoc IStaking
    function slashable(address operator) external view returns (uint256) {
        Operator storage op = _operators[operator];
        return uint256(op.stake) + op.unbonding;
    }

    /// @inheritdoc IStaking
    function isActive(address operator) external view returns (bool) {
        return _operators[operator].place != 0;
    }

    /// @inheritdoc IStaking
    function operatorCount() external view returns (uint256) {
        return _count.latest();
    }

    /// @inheritdoc IStaking
    function operatorAt(uint256 place) external view returns (address) {
        return place < _count.latest() ? address(_places[place].latest()) : address(0);
    }

    /// @inheritdoc IStaking
    function operatorCountAt(uint40 moment) public view returns (uint256) {
        return _count.upperLookupRecent(moment);
    }

    /// @inheritdoc IStaking
    function candidate(uint256 place, uint40 moment) external view returns (address operator, address owner) {
        if (place >= operatorCountAt(moment)) return (address(0), address(0));
        operator = address(_places[place].upperLookupRecent(moment));
        owner = _operators[operator].owner;
    }

    /// @inheritdoc IStaking
    function ownerAt(address operator, uint40 moment) external view returns (address) {
        Operator storage op = _operators[operator];
        return op.ownedSince <= moment ? op.owner : address(0);
    }

    /// @inheritdoc IStaking
    function stakeConsentDigest(address owner) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(STAKE_CONSENT_TYPEHASH, owner)));
    }

    /// @dev Brings the active list in line with the operator's stake and jail.
    function _relist(address operator, Operator storage op) private {
        bool fit = op.stake >= minStake && block.timestamp >= op.jailedUntil;
        uint256 place = op.place;
        if (fit == (place != 0)) return;
        uint160 count = _count.latest();
        uint96 second = uint96(block.timestamp);
        if (fit) {
            _places[count].push(second, uint160(operator));
            _count.push(second, count + 1);
            op.place = SafeCast.toUint24(count + 1);
            emit Activated(operator);
        } else {
            uint160 last = _places[count - 1].latest();
            _places[place - 1].push(second, last);
            _count.push(second, count - 1);
            _operators[address(last)].place = uint24(place);
            op.place = 0;
            emit Deactivated(operator);
        }
    }
}
