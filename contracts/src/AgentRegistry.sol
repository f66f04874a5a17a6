// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {Lineage} from "./Lineage.sol";
import {Rows} from "./Rows.sol";

/// @title Lineage of agents and the split tables agreed for them
/// @notice Holds no money. Of a table nothing but its sunset ever changes, and nobody stands in one against its will.
contract AgentRegistry is EIP712, Lineage {
    uint256 public constant MAX_PARTIES = 16;
    uint256 public constant WHOLE_BPS = 10_000;
    uint8 private constant LAST_ROLE = 4;
    bytes32 public constant TERMS_CONSENT_TYPEHASH = keccak256("TermsConsent(bytes32 terms,uint40 deadline)");

    /// @inheritdoc IAgentRegistry
    address public immutable auctions;

    mapping(bytes32 id => Terms) private _terms;
    /// @dev By role; one slot a party.
    mapping(address party => uint16[LAST_ROLE + 1]) private _policies;

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
        _requireMayAgree(agent, msg.sender, parties.length);
        id = Rows.tableHash(agent, parties);
        if (_terms[id].agreedAt != 0) return id;
        (uint256 royaltyBps, uint256 missing) = _checkShares(agent, msg.sender, parties);
        _checkConsents(id, missing, parties, deadline, consents);
        _write(id, agent, parties, royaltyBps, 0);
    }

    /// @inheritdoc IAgentRegistry
    function agreeAuctioned(bytes32 agent, Party[] calldata parties, uint32 sunsetAt) external returns (bytes32 id) {
        require(msg.sender == auctions, NotAuctions(msg.sender));
        _requireMayAgree(agent, _agents[agent].owner, parties.length);
        id = Rows.tableHash(agent, parties);
        (uint256 royaltyBps,) = _checkShares(agent, address(0), parties);
        Terms storage t = _terms[id];
        if (t.agreedAt == 0) {
            _write(id, agent, parties, royaltyBps, sunsetAt);
        } else if (t.sunsetAt != 0) {
            // The epoch needs these terms: a sunset that is under way, or past, moves to its end.
            sunsetAt = uint32(Math.max(t.sunsetAt, sunsetAt));
            (t.sunsetAt, t.fixedSunset) = (sunsetAt, true);
            emit TermsSunsetSet(id, sunsetAt);
        }
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
        _requireMayAgree(agent, sender, parties.length);
        bytes32 id = Rows.tableHash(agent, parties);
        uint256 missing;
        (royaltyBps, missing) = _checkShares(agent, sender, parties);
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
        return bytes20(keccak256(abi.encode(agent)));
    }

    function _requireMayAgree(bytes32 agent, address sender, uint256 count) private view {
        Agent storage a = _owned(agent, sender);
        require(!_hasSunset(a), AgentSunset(agent));
        require(count != 0 && count <= MAX_PARTIES, BadPartyCount(count));
    }

    function _write(bytes32 id, bytes32 agent, Party[] calldata parties, uint256 royaltyBps, uint32 sunsetAt) private {
        _terms[id] = Terms(
            tagOf(agent), uint16(royaltyBps), uint8(parties.length), uint32(block.timestamp), sunsetAt, sunsetAt != 0
        );
        emit TermsAgreed(id, agent, parties);
        if (sunsetAt != 0) emit TermsSunsetSet(id, sunsetAt);
    }

    /// @return royaltyBps the sum of the shares
    /// @return missing one bit for each party that is neither `sender` nor an ancestor's owner that gets what it asks
    function _checkShares(bytes32 agent, address sender, Party[] calldata parties)
        private
        view
        returns (uint256 royaltyBps, uint256 missing)
    {
        royaltyBps = _sumOfShares(parties);
        Owed memory owed = _owedBy(agent, parties);
        require(owed.short == 0, AncestorUnderpaid(owed.short, owed.wanted, owed.offered));
        for (uint256 i = 0; i < parties.length; ++i) {
            address payee = parties[i].payee;
            if (payee == sender) continue;
            uint256 k = 0;
            while (k < owed.count && owed.owners[k] != payee) ++k;
            if (k == owed.count) missing |= 1 << i;
        }
    }

    function _sumOfShares(Party[] calldata parties) private pure returns (uint256 sum) {
        uint256[MAX_PARTIES] memory keys;
        for (uint256 i = 0; i < parties.length; ++i) {
            Party calldata p = parties[i];
            (address payee, uint256 role, uint256 bps) = (p.payee, p.role, p.bps);
            require(payee != address(0) && role != 0 && role <= LAST_ROLE && bps != 0, BadParty(i));
            uint256 key = uint256(uint160(payee)) << 8 | role;
            for (uint256 j = 0; j < i; ++j) {
                require(keys[j] != key, DuplicateParty(i));
            }
            keys[i] = key;
            sum += bps;
        }
        require(sum < WHOLE_BPS, SharesTooHigh(sum));
    }

    /// @dev The parties with a bit in `missing` must have consented by policy or by signature. All sign the same digest: the table's.
    function _checkConsents(
        bytes32 id,
        uint256 missing,
        Party[] calldata parties,
        uint40 deadline,
        bytes[] calldata consents
    ) private view {
        bool given = consents.length != 0;
        require(!given || consents.length == parties.length, BadConsentCount(consents.length));
        bytes32 digest = given ? consentDigest(id, deadline) : bytes32(0);
        for (uint256 i = 0; i < parties.length; ++i) {
            if (missing >> i & 1 == 0) continue;
            address payee = parties[i].payee;
            // The key first: it costs less than looking for a policy or for code at the address.
            bool signed = given && _recover(digest, consents[i]) == payee;
            if (signed && block.timestamp < deadline) continue;
            if (_accepts(parties[i])) continue;
            signed =
                signed || (given && SignatureChecker.isValidERC1271SignatureNowCalldata(payee, digest, consents[i]));
            require(signed, NoConsent(i));
            require(block.timestamp < deadline, ConsentExpired(deadline));
        }
    }

    function _accepts(Party calldata party) private view returns (bool) {
        uint256 minBps = _policies[party.payee][party.role];
        return minBps != 0 && party.bps >= minBps;
    }

    /// @dev Whoever signed, in 64 or 65 bytes; zero if nobody validly did.
    function _recover(bytes32 digest, bytes calldata signature) private pure returns (address signer) {
        if (signature.length == 64) {
            (signer,,) = ECDSA.tryRecover(digest, bytes32(signature[:32]), bytes32(signature[32:]));
        } else {
            (signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        }
    }
}
