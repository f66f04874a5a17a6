// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {Lineage} from "./Lineage.sol";
import {Rows} from "./Rows.sol";
import {Tables} from "./Tables.sol";

/// @title Lineage of agents and the split tables agreed for them
/// @notice Holds no money. Of a table nothing but its sunset ever changes, and nobody stands in one against its will.
contract AgentRegistry is EIP712, Lineage {
    uint256 private constant LAST_ROLE = Tables.LAST_ROLE;
    bytes32 public constant TERMS_CONSENT_TYPEHASH = keccak256("TermsConsent(bytes32 terms,uint40 deadline)");

    /// @inheritdoc IAgentRegistry
    address public immutable auctions;

    mapping(bytes32 id => Terms) private _terms;
    /// @dev By role, 1 to 4; one slot a party.
    mapping(address party => uint16[5]) private _policies;

    constructor(address auctions_, address lineageCourt_) EIP712("Lading", "1") Lineage(lineageCourt_) {
        auctions = auctions_;
    }

    /// @inheritdoc IAgentRegistry
    function setPolicy(uint8 role, uint16 minBps) external {
        require(role != 0 && role <= LAST_ROLE, UnknownRole(role));
        _policies[msg.sender][role] = minBps;
        emit PolicySet(msg.sender, role, minBps);
    }

    /// @inheritdoc IAgentRegistry
    function agreeTerms(bytes32 agent, Party[] calldata parties, uint40 deadline, bytes[] calldata consents)
        external
        returns (bytes32 id)
    {
        uint256 depth = _requireMayAgree(agent, msg.sender);
        id = Rows.tableHash(agent, parties);
        Terms storage t = _terms[id];
        if (t.agreedAt != 0) return id;
        (uint256 royaltyBps, uint256 missing) = Tables.read(parties, msg.sender);
        if (depth != 0) missing &= ~_ancestorsIn(agent, parties);
        _checkConsents(id, missing, parties, deadline, consents);
        _write(t, agent, parties.length, royaltyBps, 0);
        Tables.logAgreed(id, agent, parties);
    }

    /// @inheritdoc IAgentRegistry
    function agreeAuctioned(bytes32 agent, Party[] calldata parties, uint32 sunsetAt) external returns (bytes32 id) {
        require(msg.sender == auctions, NotAuctions(msg.sender));
        _requireMayAgree(agent, _agents[agent].owner);
        id = Rows.tableHash(agent, parties);
        (uint256 royaltyBps,) = Tables.read(parties, address(0));
        _ancestorsIn(agent, parties);
        Terms storage t = _terms[id];
        if (t.agreedAt == 0) {
            _write(t, agent, parties.length, royaltyBps, sunsetAt);
            Tables.logAgreed(id, agent, parties);
        } else if (t.sunsetAt != 0) {
            // The epoch needs these terms: a sunset that is under way, or past, moves to its end.
            sunsetAt = uint32(Math.max(t.sunsetAt, sunsetAt));
            (t.sunsetAt, t.fixedSunset) = (sunsetAt, true);
        } else {
            return id;
        }
        emit TermsSunsetSet(id, sunsetAt);
    }

    /// @inheritdoc IAgentRegistry
    function sunsetTerms(bytes32 id, bytes32 agent, uint32 moment) external {
        Terms storage t = _terms[id];
        require(t.agreedAt != 0 && t.tag == tagOf(agent), UnknownTerms(id));
        _owned(agent, msg.sender);
        require(!t.fixedSunset && (t.sunsetAt == 0 || block.timestamp < t.sunsetAt), SunsetFixed(id));
        _requireNotice(moment);
        t.sunsetAt = moment;
        emit TermsSunsetSet(id, moment);
    }

    /// @inheritdoc IAgentRegistry
    function condemn(bytes32 agent, Party[] calldata parties) external {
        bytes32 id = Rows.tableHash(agent, parties);
        Terms storage t = _terms[id];
        require(t.agreedAt != 0, UnknownTerms(id));
        require(_owedBy(agent, parties).short != 0, NothingToCondemn(id));
        uint32 moment = uint32(block.timestamp) + NOTICE;
        if (t.sunsetAt != 0 && t.sunsetAt < moment) moment = t.sunsetAt;
        (t.sunsetAt, t.fixedSunset) = (moment, true);
        emit Condemned(id, moment);
    }

    /// @inheritdoc IAgentRegistry
    function checkTable(
        bytes32 agent,
        address sender,
        Party[] calldata parties,
        uint40 deadline,
        bytes[] calldata consents
    ) external view returns (uint256 royaltyBps) {
        _requireMayAgree(agent, sender);
        bytes32 id = Rows.tableHash(agent, parties);
        uint256 missing;
        (royaltyBps, missing) = Tables.read(parties, sender);
        missing &= ~_ancestorsIn(agent, parties);
        // An auction's winners consented to one epoch only.
        Terms storage t = _terms[id];
        if (t.agreedAt == 0 || t.fixedSunset) _checkConsents(id, missing, parties, deadline, consents);
    }

    /// @inheritdoc IAgentRegistry
    function terms(bytes32 id)
        external
        view
        returns (bytes20 tag, uint16 royaltyBps, uint8 count, uint32 agreedAt, uint32 sunsetAt)
    {
        Terms storage t = _terms[id];
        return (t.tag, t.royaltyBps, t.count, t.agreedAt, t.sunsetAt);
    }

    /// @inheritdoc IAgentRegistry
    function isOpen(bytes32 id) external view returns (bool) {
        Terms storage t = _terms[id];
        (uint256 agreedAt, uint256 sunsetAt) = (t.agreedAt, t.sunsetAt);
        return agreedAt != 0 && (sunsetAt == 0 || block.timestamp < sunsetAt);
    }

    /// @inheritdoc IAgentRegistry
    function policyOf(address party, uint8 role) external view returns (uint16 minBps) {
        return role > LAST_ROLE ? 0 : _policies[party][role];
    }

    /// @inheritdoc IAgentRegistry
    function termsId(bytes32 agent, Party[] calldata parties) external pure returns (bytes32) {
        return keccak256(abi.encode(agent, parties));
    }

    /// @inheritdoc IAgentRegistry
    function consentDigest(bytes32 id, uint40 deadline) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(TERMS_CONSENT_TYPEHASH, id, deadline)));
    }

    /// @inheritdoc IAgentRegistry
    function tagOf(bytes32 agent) public pure returns (bytes20) {
        return Tables.tagOf(agent);
    }

    function _requireMayAgree(bytes32 agent, address sender) private view returns (uint256 depth) {
        Agent storage a = _agents[agent];
        address owner;
        uint256 sunsetAt;
        (owner, depth, sunsetAt) = (a.owner, a.depth, a.sunsetAt);
        require(owner != address(0), UnknownAgent(agent));
        require(owner == sender, NotOwner(sender));
        require(sunsetAt == 0 || block.timestamp < sunsetAt, AgentSunset(agent));
    }

    /// @dev Writes the slot as `Terms` packs it, in one piece: field by field it would be read again, for 300 gas.
    function _write(Terms storage t, bytes32 agent, uint256 count, uint256 royaltyBps, uint32 sunsetAt) private {
        uint256 word = uint160(Tables.tagOf(agent)) | royaltyBps << 160 | count << 176
            | uint256(uint32(block.timestamp)) << 184 | uint256(sunsetAt) << 216;
        if (sunsetAt != 0) word |= 1 << 248;
        assembly ("memory-safe") {
            sstore(t.slot, word)
        }
    }

    /// @dev One bit for each party that owns an ancestor which asks for something. Reverts unless all ancestors get what they ask.
    function _ancestorsIn(bytes32 agent, Party[] calldata parties) private view returns (uint256) {
        Owed memory owed = _owedBy(agent, parties);
        require(owed.short == 0, AncestorUnderpaid(owed.short, owed.wanted, owed.offered));
        return owed.theirs;
    }

    /// @dev The parties with a bit in `missing` must consent by signature or by policy. All sign the same digest, the table's. Keys
    /// first: recovering one costs less than looking for a policy or for code at the address.
    function _checkConsents(
        bytes32 id,
        uint256 missing,
        Party[] calldata parties,
        uint40 deadline,
        bytes[] calldata consents
    ) private view {
        uint256 signed = 0;
        if (consents.length != 0) {
            require(consents.length == parties.length, BadConsentCount(consents.length));
            uint256 unsigned = Tables.unsigned(consentDigest(id, deadline), missing, parties, consents);
            signed = missing ^ unsigned;
            if (block.timestamp < deadline) missing = unsigned;
        }
        for (uint256 i = 0; missing >> i != 0; ++i) {
            if (missing >> i & 1 == 0 || _accepts(parties[i])) continue;
            bool consents_ = signed >> i & 1 != 0;
            if (!consents_ && consents.length != 0) {
                consents_ = _walletSigned(parties[i].payee, id, deadline, consents[i]);
            }
            require(consents_, NoConsent(i));
            require(block.timestamp < deadline, ConsentExpired(deadline));
        }
    }

    function _walletSigned(address wallet, bytes32 id, uint40 deadline, bytes calldata signature)
        private
        view
        returns (bool)
    {
        return SignatureChecker.isValidERC1271SignatureNowCalldata(wallet, consentDigest(id, deadline), signature);
    }

    function _accepts(Party calldata party) private view returns (bool) {
        uint256 minBps = _policies[party.payee][party.role];
        return minBps != 0 && party.bps >= minBps;
    }
}
