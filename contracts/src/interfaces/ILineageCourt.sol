// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICommittee} from "./ICommittee.sol";

/// @title Disputes about hidden parents
/// @notice Whoever derives a model owes its ancestors their royalty; one who registers it as a root hides them. The owner of the
/// parent contests with a bond. The owner of the agent answers with the same bond, and a committee of operators, drawn and
/// voting as in the audit court, compares the two; or it does not answer in time, which admits it. If the contest is upheld
/// the registry puts the agent under its parent: tables that pay the ancestors too little can be condemned by anyone.
interface ILineageCourt is ICommittee {
    /// @notice Only the owner of the parent contests.
    error NotOwner(address caller);
    /// @notice The agent has a parent already, or is not younger than the one claimed, or this contest is open or was decided.
    error NotContestable(bytes32 agent);
    /// @notice The contest waits for no answer.
    error NoAnswerDue(bytes32 id);

    event Contested(
        bytes32 indexed id,
        bytes32 indexed agent,
        bytes32 indexed parent,
        address challenger,
        bytes32 evidence,
        uint40 answerBy
    );
    event Answered(bytes32 indexed id, address indexed owner, uint256 drawBlock);
    /// @notice The agent is now under the parent; silence admitted it, or a committee ruled so.
    event Upheld(bytes32 indexed id, bytes32 indexed agent, bytes32 indexed parent);
    /// @notice The contest was right, but the registry cannot put the agent there: another contest came first.
    event Moot(bytes32 indexed id, bytes32 indexed agent, bytes32 indexed parent);
    /// @notice A committee ruled that the agent does not derive from the parent.
    event Dismissed(bytes32 indexed id, bytes32 indexed agent, bytes32 indexed parent);

    /// @notice Claims that `agent`, a root, derives from the caller's `parent`. Takes the bond (needs an allowance).
    /// @param evidence digest of what the challenger will show the jurors
    function contest(bytes32 agent, bytes32 parent, bytes32 evidence) external returns (bytes32 id);

    /// @notice Denies it, by the agent's owner, with the same bond: a committee is drawn.
    function answer(bytes32 id) external;

    /// @notice Upholds a contest that was not answered in time; anyone may send. The bond goes back.
    function uphold(bytes32 id) external;

    // ---- views

    /// @notice What is contested, and by when the answer is due (a second, exclusive).
    function contests(bytes32 id) external view returns (bytes32 agent, bytes32 parent, uint40 answerBy);
    function contestId(bytes32 agent, bytes32 parent, address challenger) external pure returns (bytes32);
}
