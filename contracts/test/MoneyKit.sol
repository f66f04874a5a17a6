// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AICoin} from "../src/AICoin.sol";
import {AgentRegistry} from "../src/AgentRegistry.sol";
import {Settlement} from "../src/Settlement.sol";
import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {Vm} from "./Vm.sol";

/// @notice Deploys coin, registry and settlement, and builds what tests sign. Keys are small integers.
abstract contract MoneyKit {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint96 internal constant COIN = 1e18;
    uint40 internal constant EXIT_DELAY = 1 hours;
    uint40 internal constant CLOSE_DELAY = 1 days;

    bytes32 internal constant AGENT = keccak256("agent");
    address internal constant MAKER = address(0xA1);
    address internal constant OEM = address(0xA2);
    address internal constant CURATOR = address(0xA3);
    address internal constant AUCTIONS = address(0xA0C);
    address internal constant LINEAGE_COURT = address(0xC0);
    uint256 internal constant PAYER_KEY = 0x101;
    uint256 internal constant SESSION_KEY = 0x102;
    uint256 internal constant HOST_KEY = 0x103;

    struct Signed {
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    AICoin internal coin;
    AgentRegistry internal registry;
    Settlement internal settlement;
    address internal payer = vm.addr(PAYER_KEY);
    address internal session = vm.addr(SESSION_KEY);
    address internal host = vm.addr(HOST_KEY);
    bytes32 internal terms;

    /// @dev The test contract is the bank: it holds the supply and approves everybody.
    function deployMoney() internal {
        deployMoneyOn(address(new AICoin("Lading", "LADE", 1e9 * uint256(COIN), address(this))));
    }

    /// @dev On any coin: tests with strange ones use of `coin` what those have.
    function deployMoneyOn(address coin_) internal {
        vm.warp(1_800_000_000);
        vm.roll(1_000);
        coin = AICoin(coin_);
        registry = new AgentRegistry(AUCTIONS, LINEAGE_COURT);
        settlement = new Settlement(coin, registry, EXIT_DELAY, CLOSE_DELAY);
        // Not every coin returns what ERC-20 says.
        (bool ok,) = coin_.call(abi.encodeCall(coin.approve, (address(settlement), type(uint256).max)));
        vm.assertTrue(ok, "approved");
        vm.prank(MAKER);
        registry.register(AGENT, 0, 500);
        vm.prank(OEM);
        registry.setPolicy(2, 1);
        vm.prank(CURATOR);
        registry.setPolicy(4, 1);
        vm.prank(MAKER);
        terms = registry.agreeTerms(AGENT, table(), 0, new bytes[](0));
    }

    /// @dev 1,000 + 500 + 300 of 10,000: royalties of 18 %.
    function table() internal pure returns (IAgentRegistry.Party[] memory parties) {
        parties = new IAgentRegistry.Party[](3);
        parties[0] = IAgentRegistry.Party(MAKER, 1, 1_000);
        parties[1] = IAgentRegistry.Party(OEM, 2, 500);
        parties[2] = IAgentRegistry.Party(CURATOR, 4, 300);
    }

    function fund(address who, uint256 amount) internal {
        settlement.depositFor(who, uint96(amount));
    }

    function openSession(uint96 cap, uint40 expiry) internal {
        bytes memory consent = sign65(SESSION_KEY, settlement.sessionConsentDigest(payer));
        vm.prank(payer);
        settlement.authorize(session, cap, expiry, consent);
    }

    /// @dev `owner`'s ERC-3009 authorization of the settlement to receive `value`, good now and for a minute.
    function receipt3009(uint256 key, uint256 value, bytes32 nonce) internal view returns (Signed memory a) {
        bytes32 typehash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        a.validAfter = vm.getBlockTimestamp() - 1;
        a.validBefore = vm.getBlockTimestamp() + 60;
        a.nonce = nonce;
        bytes memory words = abi.encode(typehash, vm.addr(key), settlement, value, a.validAfter, a.validBefore, nonce);
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", coin.DOMAIN_SEPARATOR(), keccak256(words)));
        (a.v, a.r, a.s) = vm.sign(key, digest);
    }

    function depositSigned(address who, uint96 amount, Signed memory a) internal {
        settlement.depositWithAuthorization(who, amount, a.validAfter, a.validBefore, a.nonce, a.v, a.r, a.s);
    }

    function voucher(uint256 key, uint96 cumulative) internal view returns (bytes memory) {
        return voucherFor(key, host, terms, 0, cumulative);
    }

    function voucherFor(uint256 key, address to, bytes32 under, uint32 epoch, uint96 cumulative)
        internal
        view
        returns (bytes memory)
    {
        return row(key, cumulative, settlement.voucherDigest(to, under, epoch, cumulative));
    }

    function lockRow(uint256 key, uint96 cumulative) internal view returns (bytes memory) {
        return lockRowFor(key, host, terms, 0, cumulative);
    }

    function lockRowFor(uint256 key, address to, bytes32 under, uint32 epoch, uint96 cumulative)
        internal
        view
        returns (bytes memory)
    {
        return row(key, cumulative, settlement.lockDigest(to, under, epoch, cumulative));
    }

    /// @dev 76 bytes: cumulative, r, yParityAndS.
    function row(uint256 key, uint96 cumulative, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(cumulative, r, bytes32(uint256(s) | (uint256(v - 27) << 255)));
    }

    function sign65(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function channelOf(address signer, uint32 epoch)
        internal
        view
        returns (uint256 locked, uint256 redeemed, uint256 closesAt, bool dead)
    {
        bytes32 id = settlement.channelId(signer, host, terms, epoch);
        (locked, redeemed, closesAt,, dead) = settlement.channels(id);
    }

    function freeOf(address who) internal view returns (uint256 free) {
        (free,,) = settlement.accounts(who);
    }

    function skip(uint256 delta) internal {
        vm.warp(vm.getBlockTimestamp() + delta);
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function eq(uint256 a, uint256 b, string memory why) internal pure {
        vm.assertEq(a, b, why);
    }
}
