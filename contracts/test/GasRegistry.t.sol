// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {RegistryKit} from "./RegistryKit.sol";

/// @notice What the registry's verbs cost as transactions of their own, intrinsic gas and calldata included. The table is the one a
/// publisher meets: five parties, of which the caller is one and the others consent. The project's bar is 80,000: policies
/// and 64-byte signatures stay under it; a 65th byte costs a word of calldata each, an ancestor two slots to read.
/// @dev Isolation makes forge run every call as a transaction, so that slots are cold and refunds are real.
/// forge-config: default.isolate = true
contract GasRegistryTest is RegistryKit {
    event log_named_uint(string name, uint256 value);

    uint256 private constant FIRST_KEY = 0x10000;
    uint256 private constant OTHERS = 4;

    /// @dev As long as any address: zeros are cheaper in calldata.
    address private maker = vm.addr(0x20000);

    function setUp() public {
        deployRegistry();
        register(maker, AGENT, 0, 500);
        register(oem, CHILD, AGENT, 300);
    }

    function _report(string memory name, uint256 bar) private {
        uint256 spent = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint(name, spent);
        vm.assertLe(spent, bar, name);
    }

    function _five(address caller) private pure returns (IAgentRegistry.Party[] memory five) {
        five = new IAgentRegistry.Party[](OTHERS + 1);
        for (uint256 i = 0; i < OTHERS; ++i) {
            five[i] = IAgentRegistry.Party(vm.addr(FIRST_KEY + i), uint8(i % 4 + 1), uint16(300 + i));
        }
        five[OTHERS] = IAgentRegistry.Party(caller, 1, 1_000);
    }

    function _signed(bytes32 agent, IAgentRegistry.Party[] memory five, bool short)
        private
        view
        returns (bytes[] memory consents)
    {
        consents = new bytes[](OTHERS + 1);
        bytes32 digest = registry.consentDigest(registry.termsId(agent, five), FOREVER);
        for (uint256 i = 0; i < OTHERS; ++i) {
            consents[i] = short ? sign64(FIRST_KEY + i, digest) : sign65(FIRST_KEY + i, digest);
        }
    }

    function _bySignatures(bool short) private {
        IAgentRegistry.Party[] memory five = _five(maker);
        bytes[] memory consents = _signed(AGENT, five, short);
        vm.prank(maker);
        registry.agreeTerms(AGENT, five, FOREVER, consents);
    }

    function test_gas_terms_by_signatures() public {
        _bySignatures(false);
        _report("gas_terms_5_by_signature_65", 80_500);
    }

    function test_gas_terms_by_short_signatures() public {
        _bySignatures(true);
        _report("gas_terms_5_by_signature_64", 80_000);
    }

    function test_gas_terms_by_policy() public {
        IAgentRegistry.Party[] memory five = _five(maker);
        for (uint256 i = 0; i < OTHERS; ++i) {
            vm.prank(five[i].payee);
            registry.setPolicy(five[i].role, 1);
        }
        _report("gas_set_policy", 47_000);
        vm.prank(maker);
        registry.agreeTerms(AGENT, five, 0, none());
        _report("gas_terms_5_by_policy", 73_000);
    }

    /// @dev The maker, as an ancestor that gets what it asks, needs no signature of its own.
    function test_gas_terms_of_a_descendant() public {
        IAgentRegistry.Party[] memory five = _five(oem);
        five[0] = IAgentRegistry.Party(maker, 1, 500);
        bytes[] memory consents = _signed(CHILD, five, true);
        consents[0] = "";
        vm.prank(oem);
        registry.agreeTerms(CHILD, five, FOREVER, consents);
        _report("gas_terms_5_of_a_descendant", 83_000);
    }

    function test_gas_register_and_ends() public {
        register(maker, GRANDCHILD, CHILD, 100);
        _report("gas_register", 81_000);
        vm.prank(maker);
        registry.supersede(AGENT, GRANDCHILD);
        _report("gas_supersede", 55_000);
        bytes32 id = agree(maker, AGENT, one(maker, 900));
        _report("gas_terms_1", 54_000);
        registry.isOpen(id);
        // One cold slot and the call: not a transaction.
        _report("gas_is_open", 2_800);
        vm.prank(maker);
        registry.sunsetTerms(id, AGENT, time() + NOTICE);
        _report("gas_sunset_terms", 33_500);
        vm.prank(maker);
        registry.sunsetAgent(AGENT, time() + NOTICE);
        _report("gas_sunset_agent", 30_500);
    }
}
