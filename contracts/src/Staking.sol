// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IAICoin} from "./interfaces/IAICoin.sol";
import {IStaking} from "./interfaces/IStaking.sol";

/// @title Stakes of operators
/// @notice Immutable. The court is the address that the deployer will create next: it is passed here before it exists, and the
/// court refuses to be created anywhere else. coin.balanceOf(this) >= sum(stake + unbonding) at all times.
contract Staking is EIP712, IStaking {
    using SafeERC20 for IAICoin;

    bytes32 public constant STAKE_CONSENT_TYPEHASH = keccak256("StakeConsent(address owner)");

    IAICoin public immutable coin;
    address public immutable court;
    uint96 public immutable minStake;
    uint40 public immutable cooldown;

    mapping(address operator => Operator) private _operators;
    address[] private _active;

    modifier onlyCourt() {
        require(msg.sender == court, NotCourt(msg.sender));
        _;
    }

    constructor(IAICoin coin_, address court_, uint96 minStake_, uint40 cooldown_) EIP712("Lading", "1") {
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
        } else {
            require(op.owner == msg.sender, NotOwner(msg.sender));
        }
        op.stake += amount;
        emit Staked(operator, msg.sender, amount, op.stake);
        _relist(operator, op);
        coin.safeTransferFrom(msg.sender, address(this), amount);
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
        if (burnt != 0) coin.burn(burnt);
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
        return _active.length;
    }

    /// @inheritdoc IStaking
    function operatorAt(uint256 index) external view returns (address) {
        return _active[index];
    }

    /// @inheritdoc IStaking
    function candidate(uint256 index) external view returns (address operator, address owner, uint256 activeSince) {
        if (index >= _active.length) return (address(0), address(0), 0);
        operator = _active[index];
        Operator storage op = _operators[operator];
        return (operator, op.owner, op.activeSince);
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
        if (fit) {
            _active.push(operator);
            op.place = SafeCast.toUint24(_active.length);
            op.activeSince = uint32(block.timestamp);
            emit Activated(operator);
        } else {
            address last = _active[_active.length - 1];
            _active[place - 1] = last;
            _operators[last].place = uint24(place);
            _active.pop();
            op.place = 0;
            emit Deactivated(operator);
        }
    }
}
