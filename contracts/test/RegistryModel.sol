// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {RegistryKit} from "./RegistryKit.sol";

/// @notice The registry's rules in the plainest words: what a random registry is compared with. Keeps lineages and policies of its
/// own, and reads nothing from the contract. Agents are numbered from 1; people are few, so that they meet in every role.
abstract contract RegistryModel is RegistryKit {
    struct Node {
        address owner;
        uint256 parent;
        uint256 asks;
        uint256 since;
        uint256 sunset;
    }

    uint256 internal constant PEOPLE = 5;
    Node[] internal nodes;
    address[] internal people;
    mapping(address party => mapping(uint256 role => uint256)) internal accepts;

    function deployModel() internal {
        deployRegistry();
        nodes.push();
        for (uint256 i = 0; i < PEOPLE; ++i) {
            people.push(vm.addr(keyOf(i)));
        }
    }

    function keyOf(uint256 person) internal pure returns (uint256) {
        return 0x700 + person;
    }

    function draw(uint256 seed, string memory what, uint256 below) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what))) % below;
    }

    /// @dev Registers the next agent where the rules allow it, here and there; nowhere else.
    function grow(uint256 seed) internal returns (bool) {
        uint256 parent = draw(seed, "root", 3) == 0 ? 0 : draw(seed, "parent", nodes.length);
        address owner = people[draw(seed, "owner", PEOPLE)];
        uint256 asks = draw(seed, "asks", 4) == 0 ? 0 : draw(seed, "bps", 1_500);
        uint256 sum = 0;
        for (uint256 a = parent; a != 0; a = nodes[a].parent) {
            sum += nodes[a].asks;
        }
        (,,, uint8 depth,,,) = registry.agents(bytes32(parent));
        bool allowed = parent == 0 || (sum <= 5_000 && depth < 8 && !over(nodes[parent].sunset));
        vm.prank(owner);
        try registry.register(bytes32(nodes.length), bytes32(parent), uint16(asks)) {
            vm.assertTrue(allowed, "registered against the rules");
            nodes.push(Node(owner, parent, asks, time(), 0));
        } catch {
            vm.assertTrue(!allowed, "refused against the rules");
        }
        return allowed;
    }

    function adoptAny(uint256 seed) internal returns (bool allowed) {
        if (nodes.length < 3) return false;
        uint256 child = 1 + draw(seed, "child", nodes.length - 1);
        uint256 parent = 1 + draw(seed, "adopter", nodes.length - 1);
        allowed = nodes[child].parent == 0 && nodes[parent].since < nodes[child].since;
        vm.prank(LINEAGE_COURT);
        try registry.adopt(bytes32(child), bytes32(parent)) {
            vm.assertTrue(allowed, "adopted against the rules");
            nodes[child].parent = parent;
        } catch {
            vm.assertTrue(!allowed, "adoption refused against the rules");
        }
    }

    function setAnyPolicy(uint256 seed) internal {
        address party = people[draw(seed, "party", PEOPLE)];
        uint256 role = 1 + draw(seed, "role", 4);
        uint256 least = draw(seed, "least", 3) == 0 ? 0 : draw(seed, "policy", 900);
        vm.prank(party);
        registry.setPolicy(uint8(role), uint16(least));
        accepts[party][role] = least;
    }

    /// @dev One to five parties; mostly a fair table.
    function anyTable(uint256 seed) internal view returns (IAgentRegistry.Party[] memory parties) {
        parties = new IAgentRegistry.Party[](1 + draw(seed, "count", 5));
        for (uint256 i = 0; i < parties.length; ++i) {
            uint256 s = seed ^ (i + 1);
            uint8 role = uint8(1 + draw(s, "in role", 4));
            uint16 bps = uint16(1 + draw(s, "share", draw(s, "large", 3) == 0 ? 3_000 : 900));
            parties[i] = IAgentRegistry.Party(people[draw(s, "payee", PEOPLE)], role, bps);
        }
    }

    /// @dev Everybody gets what is owed, the owner something besides.
    function fairTable(uint256 agent) internal view returns (IAgentRegistry.Party[] memory parties) {
        parties = new IAgentRegistry.Party[](PEOPLE);
        for (uint256 i = 0; i < PEOPLE; ++i) {
            uint256 bps = owedTo(people[i], agent);
            parties[i] = IAgentRegistry.Party(people[i], 1, uint16(bps == 0 ? 5 : bps));
        }
    }

    function over(uint256 moment) internal view returns (bool) {
        return moment != 0 && time() >= moment;
    }

    /// @dev What `owner` must get in tables of `agent`: its part of the first half that the ancestors ask for, from the nearest.
    function owedTo(address owner, uint256 agent) internal view returns (uint256 owed) {
        uint256 asked = 0;
        uint256 a = nodes[agent].parent;
        for (uint256 steps = 0; a != 0 && steps < 17; ++steps) {
            uint256 counted = asked + nodes[a].asks > 5_000 ? 5_000 - asked : nodes[a].asks;
            asked += counted;
            if (nodes[a].owner == owner) owed += counted;
            a = nodes[a].parent;
        }
    }

    function offered(address payee, IAgentRegistry.Party[] memory parties) internal pure returns (uint256 sum) {
        for (uint256 i = 0; i < parties.length; ++i) {
            if (parties[i].payee == payee) sum += parties[i].bps;
        }
    }

    function underpaid(uint256 agent, IAgentRegistry.Party[] memory parties) internal view returns (bool) {
        for (uint256 i = 0; i < PEOPLE; ++i) {
            if (offered(people[i], parties) < owedTo(people[i], agent)) return true;
        }
        return false;
    }

    function sound(IAgentRegistry.Party[] memory parties) internal pure returns (bool) {
        uint256 sum = 0;
        for (uint256 i = 0; i < parties.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                if (parties[i].payee == parties[j].payee && parties[i].role == parties[j].role) return false;
            }
            sum += parties[i].bps;
        }
        return sum < 10_000;
    }

    /// @dev The party who must still be asked: not the caller, not an ancestor's owner (it gets what it asks), no policy.
    function mustSign(uint256 agent, IAgentRegistry.Party memory party) internal view returns (bool) {
        if (party.payee == nodes[agent].owner || owedTo(party.payee, agent) != 0) return false;
        uint256 least = accepts[party.payee][party.role];
        return least == 0 || party.bps < least;
    }
}
