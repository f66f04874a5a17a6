// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Deploy} from "../../script/Deploy.s.sol";
import {Coins} from "../../src/Coins.sol";
import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {ICommittee} from "../../src/interfaces/ICommittee.sol";
import {ILeases} from "../../src/interfaces/ILeases.sol";
import {IParameters} from "../../src/interfaces/IParameters.sol";
import {IPromotionAuctions} from "../../src/interfaces/IPromotionAuctions.sol";
import {IShareAuctions} from "../../src/interfaces/IShareAuctions.sol";
import {Vm} from "../Vm.sol";
import {NetworkHandler} from "./NetworkHandler.sol";

/// @notice All contracts together, under everything that people who play every part at once may do to each other.
contract NetworkInvariants {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    NetworkHandler private handler;
    Deploy.Network private net;

    function setUp() public {
        handler = new NetworkHandler();
        net = handler.network();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_the_network_keeps_every_book() public view {
        _N1_no_coin_is_made_or_lost();
        _N2_settlement_and_stakes_are_what_the_books_say();
        _N3_courts_hold_the_open_bonds();
        _N4_the_market_holds_what_it_owes();
        vm.assertEq(net.coin.balanceOf(handler.thief()), 0, "N5: who owns and signs nothing gets nothing");
        vm.assertTrue(!handler.governorMovedMoney(), "N6: whoever tunes the parameters moves no coin");
    }

    /// @dev The campaign is worth something only if it gets where money moves between the contracts.
    function test_the_handler_reaches_what_matters() public {
        uint256 seed = 1;
        for (uint256 i = 0; i < 6_000; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            _step(seed);
            if (
                handler.slashes() != 0 && handler.auctioned() != 0 && handler.penalties() != 0
                    && handler.versions() != 0
            ) {
                break;
            }
        }
        vm.assertTrue(handler.slashes() != 0, "a slash");
        vm.assertTrue(handler.auctioned() != 0, "terms from an auction");
        vm.assertTrue(handler.penalties() != 0, "a lease that ended");
        vm.assertTrue(handler.versions() != 0, "a version of the parameters");
        invariant_the_network_keeps_every_book();
    }

    function _step(uint256 seed) private {
        uint256 what = seed % 10;
        uint256 next = uint256(keccak256(abi.encode(seed, 1)));
        if (what == 0) handler.money(next, uint96(seed >> 160));
        else if (what == 1) handler.accuse(next);
        else if (what < 5) handler.judge(next);
        else if (what < 7) handler.auction(next);
        else if (what == 7) handler.lease(next, uint32(seed >> 200));
        else if (what == 8 && next % 8 == 0) handler.govern(next);
        else handler.time(next);
    }

    function _N1_no_coin_is_made_or_lost() private view {
        uint256 sum = net.coin.balanceOf(address(handler)) + net.coin.balanceOf(handler.deployer());
        address[7] memory all = handler.contracts();
        for (uint256 i = 0; i < all.length; ++i) {
            sum += net.coin.balanceOf(all[i]);
        }
        for (uint256 i = 0; i < handler.PEOPLE(); ++i) {
            sum += net.coin.balanceOf(handler.people(i));
        }
        sum += net.coin.balanceOf(handler.thief()) + net.coin.balanceOf(Coins.SINK);
        vm.assertEq(sum, net.coin.totalSupply(), "N1: every coin is somewhere");
    }

    function _N2_settlement_and_stakes_are_what_the_books_say() private view {
        uint256 staked = 0;
        uint256 owed = 0;
        for (uint256 i = 0; i < handler.PEOPLE(); ++i) {
            address who = handler.people(i);
            (, uint96 stake, uint96 unbonding,,,) = net.staking.operators(who);
            staked += uint256(stake) + unbonding;
            (uint96 free,,) = net.settlement.accounts(who);
            owed += free + net.settlement.hostBalance(who);
        }
        vm.assertEq(net.coin.balanceOf(address(net.staking)), staked, "N2: stakes");
        for (uint256 t = 0; t < handler.termsCount(); ++t) {
            bytes32 terms = handler.termsAt(t);
            owed += _inChannels(terms) + net.settlement.earned(terms) - _claimed(terms);
        }
        vm.assertEq(net.coin.balanceOf(address(net.settlement)), owed, "N2: settlement");
    }

    function _inChannels(bytes32 terms) private view returns (uint256 sum) {
        for (uint256 i = 0; i < handler.PEOPLE(); ++i) {
            for (uint256 h = 0; h < handler.PEOPLE(); ++h) {
                bytes32 id = net.settlement.channelId(handler.people(i), handler.people(h), terms, 0);
                (uint96 locked, uint96 redeemed,,,) = net.settlement.channels(id);
                sum += locked - redeemed;
            }
        }
    }

    function _claimed(bytes32 terms) private view returns (uint256 sum) {
        IAgentRegistry.Party[] memory parties = handler.partiesOf(terms);
        for (uint256 k = 0; k < parties.length; ++k) {
            sum += net.settlement.claimed(terms, k);
        }
    }

    function _N3_courts_hold_the_open_bonds() private view {
        uint256 bonds = 0;
        for (uint256 i = 0; i < handler.disputeCount(); ++i) {
            bytes32 id = handler.disputes(i);
            ICommittee.DisputeView memory d = net.court.disputes(id);
            bool open = d.phase == ICommittee.Phase.Drawing || d.phase == ICommittee.Phase.Voting
                || d.phase == ICommittee.Phase.Ruled;
            // The first bond and each appeal's, which doubles.
            if (!open) continue;
            bonds += uint256(net.court.paramsOf(id).bond) * ((2 << d.appeals) - 1);
            bonds += handler.setAside(id);
        }
        for (uint256 i = 0; i < handler.PEOPLE(); ++i) {
            bonds += net.court.suretyOf(handler.people(i));
        }
        vm.assertEq(net.coin.balanceOf(address(net.court)), bonds, "N3: the audit court");
        vm.assertEq(net.coin.balanceOf(address(net.lineageCourt)), 0, "N3: the lineage court");
    }

    function _N4_the_market_holds_what_it_owes() private view {
        uint256 shares = 0;
        uint256 slots = 0;
        uint32 last = net.shareAuctions.currentEpoch() + 2;
        for (uint32 epoch = 0; epoch <= last; ++epoch) {
            bytes32 id = net.shareAuctions.auctionId(handler.agent(), epoch);
            IShareAuctions.Auction memory a = net.shareAuctions.auctions(id);
            if (a.state == IShareAuctions.State.Open) shares += uint256(a.committed - a.revealed) * a.deposit;
            slots += _inSlot(epoch, 0) + _inSlot(epoch, 1);
        }
        vm.assertEq(net.coin.balanceOf(address(net.shareAuctions)), shares, "N4: share auctions");
        vm.assertEq(net.coin.balanceOf(address(net.promotionAuctions)), slots, "N4: promotion");
        uint256 leased = 0;
        for (uint256 i = 0; i < handler.leaseCount(); ++i) {
            ILeases.Lease memory l = net.leases.leases(handler.leaseIds(i));
            if (l.state == ILeases.State.Ended) continue;
            leased += uint256(l.rate) * l.slots * (l.duration - l.served) + l.tenantBond;
            if (l.state != ILeases.State.Bid) leased += l.hostBond;
        }
        vm.assertEq(net.coin.balanceOf(address(net.leases)), leased, "N4: leases");
    }

    function _inSlot(uint32 epoch, uint8 slot) private view returns (uint256) {
        IPromotionAuctions.Slot memory s = net.promotionAuctions.slots(epoch, slot);
        if (s.settled || s.committed == 0) return 0;
        IParameters.MarketParams memory p = net.parameters.marketAt(s.version);
        return uint256(s.committed - s.revealed) * p.promotionDeposit + s.best;
    }
}
