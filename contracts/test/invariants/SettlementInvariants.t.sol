// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MoneyKit} from "../MoneyKit.sol";

/// @notice Does anything that anybody may do with the settlement, in any order, with good and bad rows, and keeps the sums.
/// Three payers sign for themselves, one of them also through two capped session keys; two hosts, three epochs.
contract SettlementHandler is MoneyKit {
    uint256 private constant SIGNERS = 5;
    address[] public hosts;
    /// @dev Kept, because deriving an address from a key is what a campaign would spend its time on.
    address[] public signers;
    mapping(bytes32 channel => uint256) public highestRedeemed;
    mapping(address signer => uint256) public highestSpent;
    bool public shrank;
    bool public overLocked;

    constructor() {
        deployMoney();
        hosts.push(vm.addr(0xB1));
        hosts.push(vm.addr(0xB2));
        for (uint256 i = 0; i < SIGNERS; ++i) {
            signers.push(vm.addr(signerKey(i)));
        }
        for (uint256 i = 0; i < 3; ++i) {
            fund(signers[i], 50 * COIN);
        }
        for (uint256 i = 3; i < SIGNERS; ++i) {
            bytes memory consent = sign65(signerKey(i), settlement.sessionConsentDigest(signers[0]));
            vm.prank(signers[0]);
            settlement.authorize(signers[i], 20 * COIN, type(uint40).max, consent);
        }
    }

    function signerKey(uint256 i) public pure returns (uint256) {
        return 0x900 + i;
    }

    // ---- what anybody may do

    function deposit(uint256 who, uint96 amount) external {
        fund(signers[who % 3], bound(amount, 1, 10 * COIN));
    }

    function exit(uint256 who, uint96 amount, bool finish) external {
        address account = signers[who % 3];
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

    function authorize(uint256 who, uint96 cap, bool revoke) external {
        address key = signers[3 + who % 2];
        vm.prank(signers[0]);
        if (revoke) settlement.revoke(key);
        else settlement.authorize(key, uint96(bound(cap, 0, 60 * COIN)), type(uint40).max, "");
    }

    function land(uint256 seed, uint96[3] calldata amounts, bool asLock, bool both) external {
        address to = hosts[seed % 2];
        uint32 epoch = uint32((seed >> 8) % 3);
        bytes memory locks;
        bytes memory vouchers;
        for (uint256 i = 0; i < 3; ++i) {
            uint256 key = signerKey((seed >> (16 + 8 * i)) % (SIGNERS + 1));
            uint96 sum = uint96(bound(amounts[i], 0, 40 * COIN));
            locks = bytes.concat(locks, lockRowFor(key, to, terms, epoch, sum));
            vouchers = bytes.concat(vouchers, voucherFor(key, to, terms, epoch, uint96(uint256(sum) * 2 / 3 + 1)));
        }
        // Garbage in the middle of a batch changes nothing.
        vouchers = bytes.concat(vouchers, new bytes(76));
        bytes memory call = both
            ? abi.encodeCall(settlement.lockAndRedeem, (to, terms, epoch, locks, vouchers))
            : asLock
                ? abi.encodeCall(settlement.lock, (to, terms, epoch, locks))
                : abi.encodeCall(settlement.redeem, (to, terms, epoch, vouchers));
        // A batch without progress reverts, and must: nothing else may go wrong.
        (bool ok,) = address(settlement).call(call);
        ok;
        _watch();
    }

    function close(uint256 seed, bool finish) external {
        address signer = signers[seed % SIGNERS];
        address to = hosts[(seed >> 8) % 2];
        uint32 epoch = uint32((seed >> 16) % 3);
        (uint96 locked,, uint40 closesAt,, bool dead) =
            settlement.channels(settlement.channelId(signer, to, terms, epoch));
        if (dead || locked == 0) return;
        if (closesAt == 0) {
            address owner = settlement.payerOf(signer);
            vm.prank(owner);
            settlement.startClose(signer, to, terms, epoch);
        } else if (finish) {
            if (vm.getBlockTimestamp() < closesAt) vm.warp(closesAt);
            settlement.finishClose(signer, to, terms, epoch);
        }
        _watch();
    }

    function claim(uint256 k) external {
        k %= 3;
        if (settlement.claimable(AGENT, table(), k) != 0) settlement.claim(AGENT, table(), k);
    }

    function withdraw(uint256 i) external {
        address to = hosts[i % 2];
        if (settlement.hostBalance(to) != 0) settlement.withdraw(to);
    }

    // ---- what the invariants read

    function books() external view returns (uint256 held, uint256 owed) {
        held = coin.balanceOf(address(settlement));
        for (uint256 i = 0; i < SIGNERS; ++i) {
            address signer = signers[i];
            owed += freeOf(signer);
            for (uint256 h = 0; h < 2; ++h) {
                for (uint32 epoch = 0; epoch < 3; ++epoch) {
                    (uint96 locked, uint96 redeemed,,,) =
                        settlement.channels(settlement.channelId(signer, hosts[h], terms, epoch));
                    owed += locked - redeemed;
                }
            }
        }
        owed += settlement.hostBalance(hosts[0]) + settlement.hostBalance(hosts[1]);
        owed += settlement.earned(terms);
        for (uint256 k = 0; k < 3; ++k) {
            owed -= settlement.claimed(terms, k);
        }
    }

    function claims() external view returns (uint256 claimed, uint256 earned) {
        earned = settlement.earned(terms);
        for (uint256 k = 0; k < 3; ++k) {
            claimed += settlement.claimed(terms, k) + settlement.claimable(AGENT, table(), k);
        }
    }

    function sessionBooks(uint256 i) external view returns (uint256 locked, uint256 inChannels) {
        address key = signers[3 + i];
        (,, uint96 used,) = settlement.sessions(key);
        locked = used;
        for (uint256 h = 0; h < 2; ++h) {
            for (uint32 epoch = 0; epoch < 3; ++epoch) {
                (uint96 c,,,,) = settlement.channels(settlement.channelId(key, hosts[h], terms, epoch));
                inChannels += c;
            }
        }
    }

    function redeemedInAll() external view returns (uint256 sum) {
        for (uint256 i = 0; i < SIGNERS; ++i) {
            for (uint256 h = 0; h < 2; ++h) {
                for (uint32 epoch = 0; epoch < 3; ++epoch) {
                    bytes32 id = settlement.channelId(signers[i], hosts[h], terms, epoch);
                    (, uint96 redeemed,,,) = settlement.channels(id);
                    sum += redeemed;
                }
            }
        }
    }

    function gross() external view returns (uint256) {
        return settlement.gross(terms);
    }

    /// @dev Records whether any channel ever went back, or over its lock; and any session over the cap it had when it grew.
    function _watch() private {
        for (uint256 i = 0; i < SIGNERS; ++i) {
            for (uint256 h = 0; h < 2; ++h) {
                for (uint32 epoch = 0; epoch < 3; ++epoch) {
                    bytes32 id = settlement.channelId(signers[i], hosts[h], terms, epoch);
                    (uint96 locked, uint96 redeemed,,,) = settlement.channels(id);
                    if (redeemed < highestRedeemed[id]) shrank = true;
                    if (redeemed > locked) overLocked = true;
                    highestRedeemed[id] = redeemed;
                }
            }
        }
        for (uint256 i = 3; i < SIGNERS; ++i) {
            address key = signers[i];
            (, uint96 cap, uint96 used,) = settlement.sessions(key);
            if (used > highestSpent[key] && used > cap) overLocked = true;
            highestSpent[key] = used;
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

    /// @dev One campaign checks them all after every call: six campaigns would only cost six times as much.
    function invariant_S1_to_S6() external view {
        _S1_conserved();
        _S2_vouchers_only_grow();
        _S3_never_over_the_lock_nor_the_cap();
        _S4_session_counts_its_channels();
        _S5_claims_sum();
        _S6_gross_is_what_channels_paid();
    }

    /// @notice A campaign in which nothing was ever redeemed, closed or claimed would prove nothing.
    function test_the_handler_reaches_every_state() external {
        uint96[3] memory amounts = [20 * COIN, 30 * COIN, 10 * COIN];
        handler.land(0x04_03_00_00_00, amounts, false, true);
        handler.claim(0);
        handler.withdraw(0);
        handler.close(3, false);
        handler.close(3, true);
        handler.exit(1, COIN, false);
        handler.exit(1, 0, true);
        vm.assertTrue(handler.gross() != 0, "redeemed");
        (uint256 held, uint256 owed) = handler.books();
        eq(held, owed, "conserved");
    }

    function _S1_conserved() private view {
        (uint256 held, uint256 owed) = handler.books();
        eq(held, owed, "S1: coin balance == sum of all claims on it");
    }

    function _S2_vouchers_only_grow() private view {
        vm.assertTrue(!handler.shrank(), "S2: redeemed never shrinks");
    }

    function _S3_never_over_the_lock_nor_the_cap() private view {
        vm.assertTrue(!handler.overLocked(), "S3: redeemed <= locked, and no session grows over its cap");
    }

    function _S4_session_counts_its_channels() private view {
        for (uint256 i = 0; i < 2; ++i) {
            (uint256 locked, uint256 inChannels) = handler.sessionBooks(i);
            eq(locked, inChannels, "S4: session.locked == sum of its channels");
        }
    }

    function _S5_claims_sum() private view {
        (uint256 claimed, uint256 earned) = handler.claims();
        vm.assertLe(claimed, earned, "S5: claims <= earned");
        vm.assertLe(earned - claimed, 1, "S5: at most parties - 2 wei wait");
    }

    function _S6_gross_is_what_channels_paid() private view {
        eq(handler.redeemedInAll(), handler.gross(), "S6: gross");
    }
}
