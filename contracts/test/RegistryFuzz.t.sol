// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {Tables} from "../src/Tables.sol";
import {RegistryModel} from "./RegistryModel.sol";

/// @notice The table library behind a call, so that its tables lie in calldata as they come.
contract TablesHarness {
    function read(IAgentRegistry.Party[] calldata parties, address sender) external pure returns (uint256, uint256) {
        return Tables.read(parties, sender);
    }

    function check(IAgentRegistry.Party[] calldata parties) external pure {
        Tables.revertFor(parties);
    }
}

contract RegistryFuzzTest is RegistryModel {
    enum Form {
        None,
        Long,
        Short,
        Foreign,
        Garbage
    }

    TablesHarness private _tables;

    function setUp() public {
        deployModel();
        _tables = new TablesHarness();
    }

    /// @dev A random world, and a random table in it with random consents: the registry says what the model says.
    function testFuzz_tables_in_random_lineages_are_agreed_exactly_when_the_model_says(uint256 seed) public {
        uint256 agents = 2 + draw(seed, "agents", 12);
        for (uint256 i = 0; i < agents; ++i) {
            uint256 s = seed ^ (i << 8);
            grow(s);
            if (draw(s, "later", 2) == 0) skip(1);
            if (draw(s, "adopt", 3) == 0) adoptAny(s);
            setAnyPolicy(s);
        }
        for (uint256 i = 0; i < 4; ++i) {
            _agreeAny(seed ^ (i << 16));
        }
    }

    function _agreeAny(uint256 seed) private {
        uint256 agent = 1 + draw(seed, "agent", nodes.length - 1);
        IAgentRegistry.Party[] memory parties = anyTable(seed);
        if (draw(seed, "fair", 2) == 0) parties = fairTable(agent);
        uint40 deadline = time() + (draw(seed, "expired", 4) == 0 ? 0 : 1);
        (bytes[] memory consents, bytes memory reason) = _consents(seed, agent, parties, deadline);
        bytes32 id = registry.termsId(bytes32(agent), parties);
        (,,, uint32 before,) = registry.terms(id);
        if (before != 0) return;
        bool good = sound(parties) && !underpaid(agent, parties) && reason.length == 0;
        vm.prank(nodes[agent].owner);
        try registry.agreeTerms(bytes32(agent), parties, deadline, consents) {
            vm.assertTrue(good, "agreed against the rules");
            vm.assertTrue(registry.isOpen(id), "open");
        } catch (bytes memory data) {
            vm.assertTrue(!good, "refused against the rules");
            if (sound(parties) && !underpaid(agent, parties)) {
                vm.assertEq(keccak256(data), keccak256(reason), "the party who has not consented");
            }
        }
    }

    /// @dev Random consents, and the registry's answer to them if the table itself is good.
    function _consents(uint256 seed, uint256 agent, IAgentRegistry.Party[] memory parties, uint40 deadline)
        private
        view
        returns (bytes[] memory consents, bytes memory reason)
    {
        bool given = draw(seed, "given", 5) != 0;
        consents = new bytes[](given ? parties.length : 0);
        bytes32 digest = registry.consentDigest(registry.termsId(bytes32(agent), parties), deadline);
        for (uint256 i = 0; i < parties.length; ++i) {
            bool signed = false;
            if (given) (consents[i], signed) = _consent(seed ^ (i << 4), parties[i].payee, digest);
            if (reason.length != 0 || !mustSign(agent, parties[i])) continue;
            if (!signed) {
                reason = abi.encodeWithSelector(IAgentRegistry.NoConsent.selector, i);
            } else if (time() >= deadline) {
                reason = abi.encodeWithSelector(IAgentRegistry.ConsentExpired.selector, deadline);
            }
        }
    }

    function _consent(uint256 seed, address payee, bytes32 digest) private view returns (bytes memory, bool) {
        // Mostly signed: else hardly any table would ever be agreed.
        Form form = draw(seed, "mostly", 3) != 0 ? Form.Long : Form(draw(seed, "form", 5));
        uint256 key = 0;
        for (uint256 i = 0; i < PEOPLE; ++i) {
            if (people[i] == payee) key = keyOf(i);
        }
        if (form == Form.Long) return (sign65(key, digest), true);
        if (form == Form.Short) return (sign64(key, digest), true);
        if (form == Form.Foreign) return (sign65(key + PEOPLE, digest), false);
        if (form == Form.Garbage) return (abi.encodePacked(digest, digest, uint8(draw(seed, "v", 256))), false);
        return ("", false);
    }

    /// @dev The loop in assembly and the plain one agree on every word, whole or dirty: mostly good tables, one word of which is
    /// sometimes at the edge, or over it.
    function testFuzz_the_fast_check_refuses_exactly_what_the_plain_one_does(uint256 seed, uint256 count) public view {
        count = bound(count, 0, 18);
        uint256 odd = draw(seed, "spoilt", 2) == 0 ? count : draw(seed, "odd", count + 1);
        bytes memory words;
        uint256 total = 0;
        for (uint256 i = 0; i < count; ++i) {
            uint256[3] memory row = _row(seed ^ (i << 8));
            if (i == odd) _spoil(row, seed, total);
            total += row[2] < 10_000 ? row[2] : 0;
            words = bytes.concat(words, abi.encode(row));
        }
        bytes memory call = abi.encodePacked(_tables.check.selector, uint256(0x20), count, words);
        (bool plain, bytes memory why) = address(_tables).staticcall(call);
        call = abi.encodePacked(_tables.read.selector, uint256(0x40), abi.encode(people[0]), count, words);
        (bool fast, bytes memory result) = address(_tables).staticcall(call);
        vm.assertTrue(plain == fast, "both or none");
        if (!fast) {
            vm.assertEq(keccak256(result), keccak256(why), "for the same reason");
            return;
        }
        (uint256 sum, uint256 others) = _sumOf(words, count);
        (uint256 fastSum, uint256 fastOthers) = abi.decode(result, (uint256, uint256));
        eq(fastSum, sum, "sum");
        eq(fastOthers, others, "others");
    }

    /// @dev Payees are neighbours, whose marks meet now and then though payee or role differ; or people, who come twice.
    function _row(uint256 seed) private view returns (uint256[3] memory) {
        bool person = draw(seed, "person", 8) == 0;
        uint256 payee = person ? uint160(people[draw(seed, "who", PEOPLE)]) : 1 + draw(seed, "near", 4_000);
        return [payee, 1 + draw(seed, "role", 4), 1 + draw(seed, "bps", 550)];
    }

    function _spoil(uint256[3] memory row, uint256 seed, uint256 total) private pure {
        uint256 word = draw(seed, "word", 3);
        uint256 most = [type(uint160).max, uint256(4), 9_999][word];
        uint256 kind = draw(seed, "kind", 6);
        if (kind == 0) row[word] = 0;
        if (kind == 1) row[word] = most;
        if (kind == 2) row[word] = most + 1;
        if (kind == 3) row[word] = uint256(keccak256(abi.encode(seed)));
        if (kind == 4) row[word] |= 1 << 255;
        // The sum, up to here, at the edge of the whole.
        if (kind == 5 && total < 9_998) row[2] = 9_998 - total + draw(seed, "edge", 3);
    }

    function _sumOf(bytes memory words, uint256 count) private view returns (uint256 sum, uint256 others) {
        for (uint256 i = 0; i < count; ++i) {
            uint256 payee;
            uint256 bps;
            assembly ("memory-safe") {
                payee := mload(add(words, add(0x20, mul(i, 0x60))))
                bps := mload(add(words, add(0x60, mul(i, 0x60))))
            }
            sum += bps;
            if (payee != uint160(people[0])) others |= 1 << i;
        }
    }
}
