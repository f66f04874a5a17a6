// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

import {AICoin} from "../src/AICoin.sol";
import {AgentRegistry} from "../src/AgentRegistry.sol";
import {Coins} from "../src/Coins.sol";
import {Settlement} from "../src/Settlement.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {IPayments} from "../src/interfaces/IPayments.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice Like the stablecoins of today: no burning, and its issuer may freeze an account.
contract FreezingCoin is ERC20 {
    mapping(address account => bool) public frozen;

    constructor() ERC20("Dollar", "USD") {
        _mint(msg.sender, 1e27);
    }

    function freeze(address account, bool yes) external {
        frozen[account] = yes;
    }

    function _update(address from, address to, uint256 amount) internal override {
        require(!frozen[from] && !frozen[to], "frozen");
        super._update(from, to, amount);
    }
}

/// @notice Staking and court on a coin that is not ours.
contract DisputeCoinsTest is CourtKit {
    FreezingCoin private dollar;

    function setUp() public {
        vm.warp(1_800_000_000);
        vm.roll(1_000);
        dollar = new FreezingCoin();
        coin = AICoin(address(dollar));
        registry = new AgentRegistry(AUCTIONS, LINEAGE_COURT);
        settlement = new Settlement(coin, registry, EXIT_DELAY, CLOSE_DELAY);
        deployCourt();
        enrol(8);
    }

    function test_a_slash_of_a_coin_that_cannot_burn_goes_where_nobody_can() public {
        bytes32 id = openDispute(receipt());
        rule(id, 3, GUILTY);
        pastAppeal(id);
        court.execute(id);
        uint256 slashed = HOST_STAKE / 2;
        eq(coin.balanceOf(Coins.SINK), slashed - slashed * 3_000 / 10_000 - receipt().amount, "destroyed");
        eq(unsettled(), 0, "nothing stays");
        eq(coin.balanceOf(address(staking)), staking.slashable(host) + 8 * MIN_STAKE, "stakes conserved");
    }

    /// @notice Juror, challenger, host's owner and consumer frozen, in every combination: the ruling is carried out, each sum
    /// waits for its owner, and nobody else gets less.
    /// forge-config: default.fuzz.runs = 64
    /// forge-config: long.fuzz.runs = 10000
    function test_no_frozen_payee_stops_an_execution(uint8 who, bool guilty, bool elsewhere) public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = rule(id, 3, guilty ? GUILTY : HONEST);
        pastAppeal(id);
        address[5] memory payees = [
            staking.ownerOf(jurors[0]),
            staking.ownerOf(jurors[1]),
            challenger,
            payer,
            guilty ? address(settlement) : address(this)
        ];
        uint256 fork = vm.snapshotState();
        court.execute(id);
        uint256[5] memory due;
        for (uint256 i = 0; i < 5; ++i) {
            due[i] = coin.balanceOf(payees[i]);
        }
        uint256 refund = guilty ? freeOf(payer) : 0;
        vm.revertToState(fork);
        for (uint256 i = 0; i < 5; ++i) {
            due[i] -= coin.balanceOf(payees[i]);
            dollar.freeze(payees[i], (who >> i) & 1 == 1);
        }
        court.execute(id);
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Closed, "closed");
        eq(staking.slashable(host), guilty ? HOST_STAKE / 2 : HOST_STAKE, "carried out");
        uint256 waiting = 0;
        for (uint256 i = 0; i < 5; ++i) {
            bool frozen = (who >> i) & 1 == 1;
            uint256 unpaid = court.unpaid(payees[i]);
            // The refund goes to the deposit, or to the consumer itself if the coin froze the settlement.
            bool direct = payees[i] == payer && guilty && (who >> 4) & 1 == 1;
            if (payees[i] != address(settlement)) {
                eq(unpaid, frozen ? due[i] + (direct ? refund : 0) : 0, "waits if frozen");
            }
            waiting += unpaid;
            dollar.freeze(payees[i], false);
            if (unpaid != 0) _collect(payees[i], elsewhere ? address(0xE15E) : payees[i], unpaid);
        }
        eq(unsettled(), 0, "nothing stays");
        if (elsewhere) eq(coin.balanceOf(address(0xE15E)), waiting, "collected elsewhere");
    }

    function _collect(address payee, address to, uint256 amount) private {
        uint256 before = coin.balanceOf(to);
        vm.prank(payee);
        court.collectUnpaid(to);
        eq(coin.balanceOf(to) - before, amount, "collected");
        vm.expectRevert(abi.encodeWithSelector(IPayments.NothingUnpaid.selector, payee));
        vm.prank(payee);
        court.collectUnpaid(to);
    }

    function test_a_frozen_backer_cannot_keep_a_void_dispute_open() public {
        bytes32 id = openDispute(receipt());
        drawn(id);
        skip(courtParams().commitWindow + courtParams().revealWindow);
        dollar.freeze(challenger, true);
        court.tally(id);
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Void, "void");
        eq(court.unpaid(challenger), courtParams().bond, "waits");
        eq(unsettled(), courtParams().bond, "and is there");
    }
}
