// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {RegistryModel} from "../RegistryModel.sol";

/// @notice Does anything that anybody may do with the registry, in any order, and remembers what was agreed. After every call it
/// looks at every table and every agent again.
contract RegistryHandler is RegistryModel {
    /// @dev `fixedSunset`: an auction or a condemnation has set it.
    struct Deal {
        bytes32 id;
        uint256 agent;
        bytes parties;
        bytes32 content;
        uint256 sunset;
        bool fixedSunset;
    }

    Deal[] internal deals;
    uint256 public agreed;
    uint256 public auctioned;
    uint256 public condemned;
    uint256 public adopted;
    uint256 public sunsets;
    bool public changed;
    bool public shortened;
    bool public broken;
    bool public underpaidWhenAgreed;
    bool public agreedWithoutConsent;
    bool public afterTheEnd;

    constructor() {
        deployModel();
        for (uint256 i = 0; i < 4; ++i) {
            grow(i);
            skip(1);
        }
    }

    // ---- what anybody may do

    function register(uint256 seed) external {
        if (nodes.length < 20) grow(seed);
        _watch(false);
    }

    function adopt(uint256 seed) external {
        if (adoptAny(seed)) ++adopted;
        _watch(false);
    }

    function policy(uint256 seed) external {
        setAnyPolicy(seed);
    }

    function wait(uint256 seconds_) external {
        skip(bound(seconds_, 1, seconds_ % 4 == 0 ? 8 days : 1 hours));
        _watch(false);
    }

    /// @dev Sometimes fully signed, sometimes with nothing but policies and ancestors.
    function agree(uint256 seed, bool signed) external {
        (uint256 agent, IAgentRegistry.Party[] memory parties) = _pick(seed);
        bytes32 id = registry.termsId(bytes32(agent), parties);
        bytes[] memory consents = signed ? _signatures(id, parties) : none();
        vm.prank(nodes[agent].owner);
        try registry.agreeTerms(bytes32(agent), parties, FOREVER, consents) {
            _note(id, agent, parties, false);
            if (!signed && _isNew(id)) {
                for (uint256 i = 0; i < parties.length; ++i) {
                    if (mustSign(agent, parties[i])) agreedWithoutConsent = true;
                }
            }
            _append(id, agent, parties, false);
        } catch {}
        _watch(false);
    }

    function auction(uint256 seed, uint256 length) external {
        (uint256 agent, IAgentRegistry.Party[] memory parties) = _pick(seed);
        bytes32 id = registry.termsId(bytes32(agent), parties);
        uint32 sunset = time() + uint32(bound(length, 1, 30 days));
        vm.prank(AUCTIONS);
        try registry.agreeAuctioned(bytes32(agent), parties, sunset) {
            _note(id, agent, parties, true);
            if (_isNew(id)) ++auctioned;
            _append(id, agent, parties, true);
        } catch {}
        _watch(true);
    }

    function sunsetTerms(uint256 seed, uint256 delta) external {
        if (deals.length == 0) return;
        Deal storage deal = deals[seed % deals.length];
        uint32 moment = delta % 3 == 0 ? 0 : time() + uint32(bound(delta, NOTICE - 100, 3 * NOTICE));
        vm.prank(nodes[deal.agent].owner);
        try registry.sunsetTerms(deal.id, bytes32(deal.agent), moment) {
            if (deal.fixedSunset || over(deal.sunset)) broken = true;
            ++sunsets;
        } catch {}
        _watch(false);
    }

    /// @dev Mostly called off: else all of them are over soon.
    function sunsetAgent(uint256 seed, uint256 delta) external {
        uint256 agent = 1 + draw(seed, "ending", nodes.length - 1);
        uint32 moment = delta % 4 != 0 ? 0 : time() + uint32(bound(delta, NOTICE - 100, 3 * NOTICE));
        vm.prank(nodes[agent].owner);
        try registry.sunsetAgent(bytes32(agent), moment) {
            if (over(nodes[agent].sunset) || (moment != 0 && moment < time() + NOTICE)) broken = true;
            nodes[agent].sunset = moment;
        } catch {}
    }

    /// @dev Looks at a few tables for one that pays too little; tries the last of them if none does.
    function condemn(uint256 seed) external {
        if (deals.length == 0) return;
        bool guilty = false;
        Deal storage deal = deals[0];
        IAgentRegistry.Party[] memory parties;
        for (uint256 i = 0; i < 8 && !guilty; ++i) {
            deal = deals[addmod(seed, i, deals.length)];
            parties = abi.decode(deal.parties, (IAgentRegistry.Party[]));
            guilty = underpaid(deal.agent, parties);
        }
        try registry.condemn(bytes32(deal.agent), parties) {
            if (!guilty) broken = true;
            deal.fixedSunset = true;
            ++condemned;
        } catch {
            if (guilty) broken = true;
        }
        _watch(false);
    }

    function supersede(uint256 seed) external {
        uint256 agent = 1 + draw(seed, "old", nodes.length - 1);
        uint256 next = 1 + draw(seed, "new", nodes.length - 1);
        vm.prank(nodes[agent].owner);
        try registry.supersede(bytes32(agent), bytes32(next)) {
            bool legal = nodes[next].owner == nodes[agent].owner && nodes[next].since >= nodes[agent].since;
            if (!legal || next == agent || over(nodes[next].sunset)) broken = true;
        } catch {}
    }

    // ---- what the invariants read

    function isForest() external view returns (bool) {
        for (uint256 i = 1; i < nodes.length; ++i) {
            uint256 steps = 0;
            bytes32 a = bytes32(i);
            while (a != 0) {
                if (++steps > nodes.length) return false;
                (, bytes32 parent,,, uint32 since,,) = registry.agents(a);
                (,,,, uint32 above,,) = registry.agents(parent);
                if (parent != bytes32(nodes[uint256(a)].parent) || (parent != 0 && above > since)) return false;
                a = parent;
            }
        }
        return true;
    }

    function versionsEnd() external view returns (bool) {
        for (uint256 i = 1; i < nodes.length; ++i) {
            bytes32 a = bytes32(i);
            for (uint256 steps = 0; a != 0; ++steps) {
                if (steps > nodes.length) return false;
                (address owner,,,,,, bytes32 next) = registry.agents(a);
                if (owner != nodes[i].owner) return false;
                a = next;
            }
        }
        return true;
    }

    function openAsSaid() external view returns (bool) {
        for (uint256 i = 0; i < deals.length; ++i) {
            if (registry.isOpen(deals[i].id) == over(deals[i].sunset)) return false;
        }
        return true;
    }

    // ---- what it remembers

    /// @dev Few tables, so that the same one comes again; half of them pay everybody what is owed today.
    function _pick(uint256 seed) private view returns (uint256 agent, IAgentRegistry.Party[] memory parties) {
        seed %= 64;
        agent = 1 + draw(seed, "agent", nodes.length - 1);
        parties = seed % 2 == 0 ? fairTable(agent) : anyTable(seed);
    }

    function _signatures(bytes32 id, IAgentRegistry.Party[] memory parties) private view returns (bytes[] memory all) {
        all = new bytes[](parties.length);
        bytes32 digest = registry.consentDigest(id, FOREVER);
        for (uint256 i = 0; i < parties.length; ++i) {
            for (uint256 k = 0; k < PEOPLE; ++k) {
                if (people[k] == parties[i].payee) all[i] = sign64(keyOf(k), digest);
            }
        }
    }

    function _isNew(bytes32 id) private view returns (bool) {
        for (uint256 i = 0; i < deals.length; ++i) {
            if (deals[i].id == id) return false;
        }
        return true;
    }

    /// @dev What must have held for this to succeed.
    function _note(bytes32 id, uint256 agent, IAgentRegistry.Party[] memory parties, bool byAuction) private {
        if (over(nodes[agent].sunset)) afterTheEnd = true;
        if ((byAuction || _isNew(id)) && underpaid(agent, parties)) underpaidWhenAgreed = true;
    }

    function _append(bytes32 id, uint256 agent, IAgentRegistry.Party[] memory parties, bool byAuction) private {
        if (!_isNew(id)) return;
        if (!byAuction) ++agreed;
        uint256 sum = 0;
        for (uint256 i = 0; i < parties.length; ++i) {
            sum += parties[i].bps;
        }
        bytes32 content = keccak256(abi.encode(registry.tagOf(bytes32(agent)), sum, parties.length, time()));
        deals.push(Deal(id, agent, abi.encode(parties), content, sunsetOf(id), byAuction));
    }

    /// @dev Every table is what it was; where its sunset moved, it moved as it may.
    function _watch(bool byAuction) private {
        for (uint256 i = 0; i < deals.length; ++i) {
            Deal storage deal = deals[i];
            (bytes20 tag, uint16 bps, uint8 count, uint32 since, uint32 sunset) = registry.terms(deal.id);
            if (keccak256(abi.encode(tag, uint256(bps), uint256(count), since)) != deal.content) changed = true;
            if (sunset == deal.sunset) continue;
            // Nobody who counted on the old moment is let down, unless with notice.
            uint256 old = deal.sunset == 0 ? type(uint256).max : deal.sunset;
            uint256 soon = time() + NOTICE;
            if (sunset != 0 && sunset < (old < soon ? old : soon)) shortened = true;
            if (over(deal.sunset) && !byAuction) broken = true;
            if (byAuction) {
                if (deal.sunset == 0 || sunset < deal.sunset) broken = true;
                deal.fixedSunset = true;
            }
            deal.sunset = sunset;
        }
    }
}

contract RegistryInvariantsTest {
    RegistryHandler private _handler;

    function setUp() public {
        _handler = new RegistryHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev All in one: a campaign of its own for each would do the same calls again.
    function invariant_registry() public view {
        _R1_terms_never_change();
        _R2_sunsets_give_notice();
        _R3_lineages_are_a_forest();
        _R4_ancestors_were_paid_when_the_table_was_agreed();
        _R5_nobody_stands_in_a_table_against_its_will();
        _R6_an_agent_that_has_sunset_gets_no_terms();
    }

    function _R1_terms_never_change() private view {
        require(!_handler.changed(), "a table changed");
    }

    function _R2_sunsets_give_notice() private view {
        require(!_handler.shortened(), "a sunset came nearer than the notice");
        require(!_handler.broken(), "something moved that may not");
        require(_handler.openAsSaid(), "open until the sunset, and no longer");
    }

    function _R3_lineages_are_a_forest() private view {
        require(_handler.isForest(), "a circle, or a parent that nobody gave");
        require(_handler.versionsEnd(), "versions in a circle, or of two owners");
    }

    function _R4_ancestors_were_paid_when_the_table_was_agreed() private view {
        require(!_handler.underpaidWhenAgreed(), "an ancestor got too little");
    }

    function _R5_nobody_stands_in_a_table_against_its_will() private view {
        require(!_handler.agreedWithoutConsent(), "no consent");
    }

    function _R6_an_agent_that_has_sunset_gets_no_terms() private view {
        require(!_handler.afterTheEnd(), "after the end");
    }
}

/// @notice The campaign reaches the states that matter: tables by consent and by auction, condemned ones, adopted agents.
contract RegistryCampaignTest {
    function test_the_campaign_reaches_what_matters() public {
        RegistryHandler handler = new RegistryHandler();
        for (uint256 i = 0; i < 400; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(i)));
            if (i % 8 == 0) handler.register(seed);
            if (i % 8 == 1) handler.agree(seed, true);
            if (i % 8 == 2) handler.agree(seed, false);
            if (i % 8 == 3) handler.auction(seed, seed);
            if (i % 8 == 4 && i > 60) handler.adopt(seed);
            if (i % 8 == 5) handler.condemn(seed);
            if (i % 8 == 6) handler.sunsetTerms(seed, seed >> 8);
            if (i % 8 == 7) handler.policy(seed);
            if (i % 20 == 0) handler.wait(seed);
            if (i % 50 == 0) handler.supersede(seed);
            if (i % 30 == 0) handler.sunsetAgent(seed, seed >> 8);
        }
        require(handler.agreed() > 10, "agreed");
        require(handler.auctioned() > 5, "auctioned");
        require(handler.adopted() > 0, "adopted");
        require(handler.condemned() > 0, "condemned");
        require(handler.sunsets() > 2, "sunsets");
        require(!handler.broken() && !handler.changed() && !handler.shortened(), "as it should be");
    }
}
