// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Stakes of operators
/// @notice An operator is a node's hot key. Its stake belongs to a cold owner, whom the operator consented to once. Stake that
/// is on its way out stays slashable until it is paid. Only the audit court, fixed at deployment, can take any. Who was active
/// when is kept for ever.
interface IStaking {
    /// @notice `stake` counts for being active; `unbonding` is leaving and still slashable. `place` is the position in the list of
    /// active operators plus one, zero when it is not there. `ownedSince` is the second of the first stake.
    struct Operator {
        address owner;
        uint96 stake;
        uint96 unbonding;
        uint40 unlockAt;
        uint40 jailedUntil;
        uint24 openDisputes;
        uint24 place;
        uint32 ownedSince;
    }

    /// @notice The zero address stakes nothing and judges nothing.
    error ZeroAddress();
    /// @notice An amount of zero does nothing.
    error ZeroAmount();
    /// @notice At deployment: a cooldown of more than a year keeps a stake from its owner for too long.
    error CooldownTooLong();
    /// @notice The operator did not sign StakeConsent for this owner.
    error BadConsent(address operator);
    /// @notice The operator belongs to another owner, for ever.
    error NotOwner(address caller);
    /// @notice Only the audit court may do this.
    error NotCourt(address caller);
    /// @notice More than the stake.
    error OverStake(uint256 stake);
    /// @notice Nothing is unbonding.
    error NothingUnbonding();
    /// @notice Not before this second.
    error TooEarly(uint256 until);
    /// @notice A dispute about this operator is open: its stake waits for the ruling.
    error DisputeOpen(uint256 disputes);
    /// @notice Not active: no stake, too little of it, or jailed.
    error NotActive(address operator);

    event Staked(address indexed operator, address indexed owner, uint256 amount, uint256 stake);
    event UnstakeRequested(address indexed operator, uint256 amount, uint40 unlockAt);
    event Unstaked(address indexed operator, address indexed owner, uint256 amount);
    /// @notice `amount` left the operator; `burnt` of it was destroyed, the court distributes the rest.
    event Slashed(address indexed operator, uint256 amount, uint256 burnt);
    event Jailed(address indexed operator, uint40 until);
    event Activated(address indexed operator);
    event Deactivated(address indexed operator);

    /// @notice Adds `amount` of the caller's coins to `operator`'s stake. The first time the caller becomes its owner, which
    /// needs the operator's signature (65 bytes) of StakeConsent(caller), unless the caller is the operator.
    function stake(address operator, uint96 amount, bytes calldata consent) external;

    /// @notice Moves `amount` from stake to unbonding, by the owner; the cooldown starts again for all that is unbonding.
    function requestUnstake(address operator, uint96 amount) external;

    /// @notice Pays what has unbonded to the owner; anyone may send. Waits for the cooldown and for open disputes.
    function finishUnstake(address operator) external;

    /// @notice Puts an operator with enough stake back on the active list after its jail; anyone may send.
    function unjail(address operator) external;

    /// @notice Court only: takes `amount`, from the stake first, then from what is unbonding; burns `burnt` of it and sends the
    /// rest to the court. The court asks for no more than `slashable`.
    function slash(address operator, uint256 amount, uint256 burnt) external;

    /// @notice Court only: off the active list until then.
    function jail(address operator, uint40 until) external;

    /// @notice Court only: holds the operator's unbonding stake while a dispute is open.
    function openDispute(address operator) external;

    /// @notice Court only: one dispute fewer.
    function closeDispute(address operator) external;

    // ---- views

    function coin() external view returns (IERC20);
    function court() external view returns (address);
    /// @notice Less stake than this is not active.
    function minStake() external view returns (uint96);
    /// @notice Seconds that unbonding takes.
    function cooldown() external view returns (uint40);
    function operators(address operator)
        external
        view
        returns (
            address owner,
            uint96 stake,
            uint96 unbonding,
            uint40 unlockAt,
            uint40 jailedUntil,
            uint24 openDisputes
        );
    function ownerOf(address operator) external view returns (address);
    /// @notice All that a slash could take: stake and unbonding.
    function slashable(address operator) external view returns (uint256);
    function isActive(address operator) external view returns (bool);
    /// @notice Number of active operators: stake of at least `minStake`, and not jailed.
    function operatorCount() external view returns (uint256);
    /// @notice The active operators in a list without gaps; whoever leaves, the last one takes its place.
    function operatorAt(uint256 place) external view returns (address);

    // ---- the past, which nobody can change: lotteries are held among those who were active at one moment before, so that
    // neither coming nor going afterwards moves a seat. `moment` is a second that has ended.

    /// @notice How many operators were active when `moment` ended.
    function operatorCountAt(uint40 moment) external view returns (uint256);
    /// @notice Who was at `place` of the list of active operators when `moment` ended, and who owns it; zeroes past the end.
    function candidate(uint256 place, uint40 moment) external view returns (address operator, address owner);
    /// @notice Who owned `operator` when `moment` ended; zero if nobody did yet.
    function ownerAt(address operator, uint40 moment) external view returns (address);
    function stakeConsentDigest(address owner) external view returns (bytes32);
}
