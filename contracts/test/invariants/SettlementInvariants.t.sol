// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {MoneyKit} from "../MoneyKit.sol";
import {Wallet} from "../Wallet.sol";

/// @notice Does anything that anybody may do with the settlement, in any order, with good and bad rows, and keeps the sums.
/// Three payers sign for themselves, one of them also through two capped session keys; a wallet pays through a third. Two
/// hosts, two epochs, two tables, one of which sunsets.
contract SettlementHandler is MoneyKit {
    uint256 private constant SIGNERS = 6;
    uint256 private constant FIRST_SESSION = 3;
    uint32 private constant EPOCHS = 2;

    /// @notice Everything that the invariants compare, read in one pass.
    struct Sums {
        uint256 held;
        uint256 free;
        uint256 waiting;
        uint256 redeemed;
        uint256 earned;
        uint256 claimed;
        uint256 claimable;
        uint256 gross;
        uint256 hosts;
        uint256[3] sessionLocked;
        uint256[3] sessionChannels;
    }

    address[2] private hosts;
    bytes32[2] private tables;
    /// @dev Kept, because deriving an address from a key is what a campaign would spend its time on.
    address[SIGNERS] private signers;
    Wallet public wallet;
    uint256 private nonces;
    mapping(bytes32 channel => uint256) private highestRedeemed;
    mapping(address signer => uint256) private highestSpent;
    bool public shrank;
    bool public overLocked;
    bool public lockedAfterSunset;
    bool public keyChangedHands;

    constructor() {
        deployMoney();
        hosts = [vm.addr(0xB1), vm.addr(0xB2)];
        vm.prank(MAKER);
        tables = [terms, registry.agreeTerms(AGENT, second(), 0, new bytes[](0))];
        wallet = new Wallet(vm.addr(signerKey(1)));
        fund(address(wallet), 50 * COIN);
        for (uint256 i = 0; i < SIGNERS; ++i) {
            signers[i] = vm.addr(signerKey(i));
            if (i < FIRST_SESSION) fund(signers[i], 50 * COIN);
            else _grant(i, 20 * COIN, type(uint40).max);
            coin.transfer(signers[i], 50 * COIN);
        }
    }

    function signerKey(uint256 i) public pure returns (uint256) {
        return 0x900 + i;
    }

    function second() public pure returns (IAgentRegistry.Party[] memory parties) {
        parties = table();
        parties[0].bps = 1_333;
        parties[2].bps = 7;
    }

    /// @dev Session keys 3 and 4 are payer 0's, key 5 is the wallet's, whose owner is payer 1.
    function payerBehind(uint256 i) public view returns (address) {
        return i < FIRST_SESSION ? signers[i] : i == 5 ? address(wallet) : signers[0];
    }

    // ---- what anybody may do

    function deposit(uint256 who, uint96 amount, bool signed) external {
        amount = uint96(bound(amount, 1, 10 * COIN));
        uint256 i = who % FIRST_SESSION;
        if (signed && coin.balanceOf(signers[i]) >= amount) {
            Signed memory a = receipt3009(signerKey(i), amount, bytes32(++nonces));
            depositSigned(signers[i], amount, a);
        } else {
            fund(who % 4 == 3 ? address(wallet) : signers[i], amount);
        }
    }

    function exit(uint256 who, uint96 amount, bool finish) external {
        address account = who % 4 == 3 ? address(wallet) : signers[who % 4];
        (uint96 free, uint96 exitAmount, uint40 exitAt) = settlement.accounts(account);
        if (!finish) {
            vm.prank(account);
            settlement.requestExit(uint96(bound(amount, 0, free)));
        } else if (exitAmount != 0) {
            if (vm.getBlockTimestamp() < exitAt) vm.warp(exitAt);
            vm.prank(account);
            settlement.finishExit();
        }
    }

    function authorize(uint256 who, uint96 cap, bool revoke, bool byGrant, bool expires) external {
        uint256 i = FIRST_SESSION + who % 3;
        cap = uint96(bound(cap, 0, 60 * COIN));
        uint40 expiry = expires ? uint40(vm.getBlockTimestamp() + 1 days) : type(uint40).max;
        if (!revoke && byGrant) return _grant(i, cap, expiry);
        vm.prank(payerBehind(i));
        if (revoke) settlement.revoke(signers[i]);
        else settlement.authorize(signers[i], cap, expiry, "");
    }

    function _grant(uint256 i, uint96 cap, uint40 expiry) private {
        address by = payerBehind(i);
        bytes memory consent = sign65(signerKey(i), settlement.sessionConsentDigest(by));
        uint64 nonce = settlement.grantNonce(by);
        bytes32 digest = settlement.sessionGrantDigest(by, signers[i], cap, expiry, nonce);
        settlement.authorizeFor(by, signers[i], cap, expiry, consent, sign65(signerKey(i == 5 ? 1 : 0), digest));
    }

    /// @notice The owner announces the second table's end, or calls it off; after it nothing is locked under it.
    function sunset(uint256 delta, bool off) external {
        (,,,, uint32 sunsetAt) = registry.terms(tables[1]);
        if (sunsetAt != 0 && vm.getBlockTimestamp() >= sunsetAt) return;
        uint256 moment = off ? 0 : vm.getBlockTimestamp() + registry.NOTICE() + delta % 2 days;
        vm.prank(MAKER);
        registry.sunsetTerms(tables[1], AGENT, uint32(moment));
    }

    function land(uint256 seed, uint96[3] calldata amounts, bool asLock, bool both) external {
        (address to, bytes32 under, uint32 epoch) = _place(seed);
        bytes memory locks;
        bytes memory vouchers;
        for (uint256 i = 0; i < 3; ++i) {
            // One signer more than there are: a stranger.
            uint256 key = signerKey(uint8(seed >> (32 + 8 * i)) % (SIGNERS + 1));
            uint96 sum = uint96(bound(amounts[i], 0, 40 * COIN));
            if (asLock || both) locks = bytes.concat(locks, lockRowFor(key, to, under, epoch, sum));
            sum = uint96(uint256(sum) * 2 / 3 + 1);
            if (!asLock || both) vouchers = bytes.concat(vouchers, voucherFor(key, to, under, epoch, sum));
        }
        // Garbage in the middle of a batch changes nothing.
        vouchers = bytes.concat(vouchers, new bytes(76));
        bytes memory call = both
            ? abi.encodeCall(settlement.lockAndRedeem, (to, under, epoch, locks, vouchers))
            : asLock
                ? abi.encodeCall(settlement.lock, (to, under, epoch, locks))
                : abi.encodeCall(settlement.redeem, (to, under, epoch, vouchers));
        uint256 free = _free();
        // A batch without progress reverts, and must: nothing else may go wrong.
        (bool ok,) = address(settlement).call(call);
        ok;
        if (!registry.isOpen(under) && _free() != free) lockedAfterSunset = true;
        _watch(to, under, epoch);
    }

    function close(uint256 seed, bool finish) external {
        uint256 i = (seed >> 32) % SIGNERS;
        (address to, bytes32 under, uint32 epoch) = _place(seed);
        (uint96 locked,, uint40 closesAt,, bool dead) =
            settlement.channels(settlement.channelId(signers[i], to, under, epoch));
        if (dead || locked == 0) return;
        if (closesAt == 0) {
            vm.prank(payerBehind(i));
            settlement.startClose(signers[i], to, under, epoch);
        } else if (finish) {
            if (vm.getBlockTimestamp() < closesAt) vm.warp(closesAt);
            settlement.finishClose(signers[i], to, under, epoch);
        }
        _watch(to, under, epoch);
    }

    function claim(uint256 k, bool other) external {
        k %= 3;
        IAgentRegistry.Party[] memory parties = other ? second() : table();
        if (settlement.claimable(AGENT, parties, k) != 0) settlement.claim(AGENT, parties, k);
    }

    function withdraw(uint256 i) external {
        address to = hosts[i % 2];
        if (settlement.hostBalance(to) != 0) settlement.withdraw(to);
    }

    function _place(uint256 seed) private view returns (address to, bytes32 under, uint32 epoch) {
        return (hosts[seed % 2], tables[(seed >> 8) % 2], uint32((seed >> 16) % EPOCHS));
    }

    // ---- what the invariants read

    function sums() external view returns (Sums memory s) {
        s.held = coin.balanceOf(address(settlement));
        s.free = _free();
        s.hosts = settlement.hostBalance(hosts[0]) + settlement.hostBalance(hosts[1]);
        for (uint256 t = 0; t < 2; ++t) {
            IAgentRegistry.Party[] memory parties = t == 0 ? table() : second();
            s.earned += settlement.earned(tables[t]);
            s.gross += settlement.gross(tables[t]);
            for (uint256 k = 0; k < 3; ++k) {
                s.claimed += settlement.claimed(tables[t], k);
                s.claimable += settlement.claimable(AGENT, parties, k);
            }
        }
        for (uint256 i = 0; i < SIGNERS; ++i) {
            if (i >= FIRST_SESSION) (,, s.sessionLocked[i - FIRST_SESSION],) = settlement.sessions(signers[i]);
            _addChannels(s, i);
        }
    }

    function _addChannels(Sums memory s, uint256 i) private view {
        for (uint256 place = 0; place < 8; ++place) {
            bytes32 id = settlement.channelId(signers[i], hosts[place % 2], tables[(place / 2) % 2], uint32(place / 4));
            (uint96 locked, uint96 redeemed,,,) = settlement.channels(id);
            s.waiting += locked - redeemed;
            s.redeemed += redeemed;
            if (i >= FIRST_SESSION) s.sessionChannels[i - FIRST_SESSION] += locked;
        }
    }

    function _free() private view returns (uint256 sum) {
        sum = freeOf(address(wallet));
        for (uint256 i = 0; i < SIGNERS; ++i) {
            sum += freeOf(signers[i]);
        }
    }

    /// @dev Records whether a channel of this place ever went back, or over its lock; a session over the cap that it had when it
    /// grew; a key to another payer.
    function _watch(address to, bytes32 under, uint32 epoch) private {
        for (uint256 i = 0; i < SIGNERS; ++i) {
            bytes32 id = settlement.channelId(signers[i], to, under, epoch);
            (uint96 locked, uint96 redeemed,,,) = settlement.channels(id);
            if (redeemed < highestRedeemed[id]) shrank = true;
            if (redeemed > locked) overLocked = true;
            highestRedeemed[id] = redeemed;
            (, uint96 cap, uint96 used,) = settlement.sessions(signers[i]);
            if (used > highestSpent[signers[i]] && used > cap) overLocked = true;
            highestSpent[signers[i]] = used;
            if (settlement.payerOf(signers[i]) != payerBehind(i)) keyChangedHands = true;
        }
    }
}

contract SettlementInvariants is MoneyKit {
    SettlementHandler private handler;

    function setUp() public {
        handler = new SettlementHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev One campaign checks them all after every call: eight campaigns would only cost eight times as much.
    function invariant_S1_to_S8() external view {
        SettlementHandler.Sums memory s = handler.sums();
        _S1_conserved(s);
        _S2_vouchers_only_grow();
        _S3_never_over_the_lock_nor_the_cap();
        _S4_session_counts_its_channels(s);
        _S5_claims_sum(s);
        _S6_gross_is_what_channels_paid(s);
        _S7_nothing_is_locked_after_the_sunset();
        _S8_a_key_has_one_payer();
    }

    /// @notice A campaign in which nothing was ever redeemed, closed or claimed would prove nothing.
    function test_the_handler_reaches_every_state() external {
        uint96[3] memory amounts = [20 * COIN, 30 * COIN, 10 * COIN];
        handler.deposit(0, COIN, true);
        // Signers 0, 3 and 5: a payer, its session key, the wallet's; at host 0, under table 0, in epoch 0.
        uint256 place = 0x05_03_00_00000000;
        handler.land(place, amounts, false, true);
        SettlementHandler.Sums memory s = handler.sums();
        vm.assertTrue(s.sessionLocked[0] != 0 && s.sessionLocked[2] != 0, "sessions lock, the wallet's too");
        vm.assertTrue(s.gross != 0 && s.claimable != 0, "redeemed");
        handler.claim(0, false);
        handler.withdraw(0);
        handler.close(0x03_00000000, false);
        handler.close(0x03_00000000, true);
        handler.authorize(2, 5 * COIN, false, true, false);
        handler.exit(3, COIN, false);
        handler.exit(3, 0, true);
        handler.sunset(0, false);
        skip(_notice());
        uint256 underSecond = place | 0x0100;
        handler.land(underSecond, amounts, true, false);
        vm.assertTrue(!handler.lockedAfterSunset(), "closed");
        _S1_conserved(handler.sums());
    }

    function _notice() private pure returns (uint256) {
        return 7 days;
    }

    function _S1_conserved(SettlementHandler.Sums memory s) private pure {
        uint256 owed = s.free + s.waiting + s.earned - s.claimed + s.hosts;
        eq(s.held, owed, "S1: coin balance == sum of all claims on it");
    }

    function _S2_vouchers_only_grow() private view {
        vm.assertTrue(!handler.shrank(), "S2: redeemed never shrinks");
    }

    function _S3_never_over_the_lock_nor_the_cap() private view {
        vm.assertTrue(!handler.overLocked(), "S3: redeemed <= locked, and no session grows over its cap");
    }

    function _S4_session_counts_its_channels(SettlementHandler.Sums memory s) private pure {
        for (uint256 i = 0; i < 3; ++i) {
            eq(s.sessionLocked[i], s.sessionChannels[i], "S4: session.locked == sum of its channels");
        }
    }

    function _S5_claims_sum(SettlementHandler.Sums memory s) private pure {
        vm.assertLe(s.claimed + s.claimable, s.earned, "S5: claims <= earned");
        vm.assertLe(s.earned - s.claimed - s.claimable, 2, "S5: at most parties - 2 wei wait in each of two pools");
    }

    function _S6_gross_is_what_channels_paid(SettlementHandler.Sums memory s) private pure {
        eq(s.redeemed, s.gross, "S6: gross");
    }

    function _S7_nothing_is_locked_after_the_sunset() private view {
        vm.assertTrue(!handler.lockedAfterSunset(), "S7: no lock under terms that have sunset");
    }

    function _S8_a_key_has_one_payer() private view {
        vm.assertTrue(!handler.keyChangedHands(), "S8: a session key never changes its payer");
    }
}
