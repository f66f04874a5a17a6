// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AgentRegistry} from "../src/AgentRegistry.sol";
import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {Vm} from "./Vm.sol";

/// @notice A registry alone, with addresses in the place of the auctions and of the lineage court, and what its tests sign.
abstract contract RegistryKit {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    bytes32 internal constant AGENT = keccak256("agent");
    bytes32 internal constant CHILD = keccak256("child");
    bytes32 internal constant GRANDCHILD = keccak256("grandchild");
    address internal constant MAKER = address(0xA1);
    address internal constant AUCTIONS = address(0xA0C);
    address internal constant LINEAGE_COURT = address(0xC0);
    uint256 internal constant OEM_KEY = 0xE1;
    uint256 internal constant CURATOR_KEY = 0xE2;
    uint32 internal constant NOTICE = 7 days;
    uint40 internal constant FOREVER = type(uint40).max;

    AgentRegistry internal registry;
    address internal oem = vm.addr(OEM_KEY);
    address internal curator = vm.addr(CURATOR_KEY);

    function deployRegistry() internal {
        vm.warp(1_800_000_000);
        registry = new AgentRegistry(AUCTIONS, LINEAGE_COURT);
    }

    /// @dev 1,000 + 500 + 300 of 10,000: royalties of 18 %.
    function table() internal view returns (IAgentRegistry.Party[] memory parties) {
        parties = new IAgentRegistry.Party[](3);
        parties[0] = IAgentRegistry.Party(MAKER, 1, 1_000);
        parties[1] = IAgentRegistry.Party(oem, 2, 500);
        parties[2] = IAgentRegistry.Party(curator, 4, 300);
    }

    function one(address payee, uint16 bps) internal pure returns (IAgentRegistry.Party[] memory parties) {
        parties = new IAgentRegistry.Party[](1);
        parties[0] = IAgentRegistry.Party(payee, 1, bps);
    }

    function none() internal pure returns (bytes[] memory) {
        return new bytes[](0);
    }

    /// @dev The consents of the parties of `table` other than the maker.
    function signatures(bytes32 id, uint40 deadline) internal view returns (bytes[] memory consents) {
        consents = new bytes[](3);
        bytes32 digest = registry.consentDigest(id, deadline);
        consents[1] = sign65(OEM_KEY, digest);
        consents[2] = sign64(CURATOR_KEY, digest);
    }

    function register(address owner, bytes32 agent, bytes32 parent, uint16 royaltyBps) internal {
        vm.prank(owner);
        registry.register(agent, parent, royaltyBps);
    }

    function agree(address owner, bytes32 agent, IAgentRegistry.Party[] memory parties) internal returns (bytes32) {
        vm.prank(owner);
        return registry.agreeTerms(agent, parties, 0, none());
    }

    function adopt(bytes32 agent, bytes32 parent) internal {
        vm.prank(LINEAGE_COURT);
        registry.adopt(agent, parent);
    }

    function sunsetOf(bytes32 id) internal view returns (uint256 sunsetAt) {
        (,,,, sunsetAt) = registry.terms(id);
    }

    function sign65(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev ERC-2098.
    function sign64(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, uint256(s) | (uint256(v - 27) << 255));
    }

    function skip(uint256 delta) internal {
        vm.warp(vm.getBlockTimestamp() + delta);
    }

    function time() internal view returns (uint32) {
        return uint32(vm.getBlockTimestamp());
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function eq(uint256 a, uint256 b, string memory why) internal pure {
        vm.assertEq(a, b, why);
    }

    function expect(bytes4 selector, bytes32 argument) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, argument));
    }

    function expect(bytes4 selector, uint256 argument) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, argument));
    }

    function expect(bytes4 selector, address argument) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, argument));
    }
}
