// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Deploy} from "../../script/Deploy.s.sol";
import {AICoin} from "../../src/AICoin.sol";
import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {IAuditCourt} from "../../src/interfaces/IAuditCourt.sol";
import {ICommittee} from "../../src/interfaces/ICommittee.sol";
import {ILeases} from "../../src/interfaces/ILeases.sol";
import {IParameters} from "../../src/interfaces/IParameters.sol";
import {Vm} from "../Vm.sol";

/// @notice The whole network as script/Deploy.s.sol deploys it, and people who each play every part: payer, host, operator, juror,
/// challenger, bidder, tenant. Calls that must be refused are refused; what is watched is the money.
contract NetworkHandler {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 public constant PEOPLE = 6;
    uint96 private constant COIN = 1e18;
    bytes32 private constant AGENT = keccak256("agent");
    bytes32 private constant SALT = keccak256("salt");
    uint8 private constant GUILTY = 2;

    Deploy.Network private net;
    AICoin public coin;
    address public deployer;
    address public thief = address(0xBAD);
    address[] public people;
    bytes32[] public termsAt;
    bytes32[] public disputes;
    bytes32[] public leaseIds;
    uint32[] public epochs;
    mapping(bytes32 id => IAuditCourt.Receipt) private _receipts;
    mapping(bytes32 id => uint32) private _firstRound;
    mapping(bytes32 terms => IAgentRegistry.Party[]) private _parties;
    IAgentRegistry.Party[] private _base;
    bool public governorMovedMoney;
    uint256 public slashes;
    uint256 public auctioned;
    uint256 public penalties;
    uint256 public versions;

    constructor() {
        vm.warp(1_800_000_000);
        vm.roll(1_000);
        coin = new AICoin("Lading", "LADE", 1e9 * uint256(COIN), address(this));
        Deploy script = new Deploy();
        deployer = address(script);
        net = script.deploy(coin, address(this));
        for (uint256 i = 0; i < PEOPLE; ++i) {
            address who = vm.addr(_key(i));
            people.push(who);
            coin.transfer(who, 50_000 * uint256(COIN));
            _approveAll(who);
            vm.prank(who);
            net.staking.stake(who, 1_500 * COIN, "");
            vm.prank(who);
            net.settlement.deposit(1_000 * COIN);
            vm.prank(who);
            net.court.lodge(who, 5_000 * COIN);
        }
        vm.prank(people[1]);
        net.registry.setPolicy(4, 1);
        vm.prank(people[0]);
        net.registry.register(AGENT, 0, 500);
        _base.push(IAgentRegistry.Party(people[0], 1, 1_000));
        _base.push(IAgentRegistry.Party(people[1], 4, 333));
        vm.prank(people[0]);
        _addTable(net.registry.agreeTerms(AGENT, _base, 0, new bytes[](0)), _base);
        vm.warp(block.timestamp + 10);
    }

    // ---- what anybody may do; each step is one verb with arguments that often fit

    function money(uint256 seed, uint96 amount) external {
        (uint256 i, address who) = _who(seed);
        address host = people[(seed >> 8) % PEOPLE];
        bytes32 terms = termsAt[(seed >> 16) % termsAt.length];
        amount = uint96(amount % (200 * uint256(COIN)) + 1);
        bytes memory call;
        uint256 verb = (seed >> 24) % 9;
        if (verb == 0) call = abi.encodeCall(net.settlement.deposit, (amount));
        else if (verb == 1) call = abi.encodeCall(net.settlement.requestExit, (amount));
        else if (verb == 2) call = abi.encodeCall(net.settlement.finishExit, ());
        else if (verb == 3) call = abi.encodeCall(net.settlement.startClose, (who, host, terms, 0));
        else if (verb == 4) call = abi.encodeCall(net.settlement.finishClose, (who, host, terms, 0));
        else if (verb == 5) call = abi.encodeCall(net.settlement.withdraw, (host));
        else if (verb == 6) call = abi.encodeCall(net.settlement.claim, (AGENT, _parties[terms], seed % 4));
        else call = _rows(i, host, terms, amount);
        _as(who, address(net.settlement), call);
    }

    function stakes(uint256 seed, uint96 amount) external {
        (, address who) = _who(seed);
        address operator = people[(seed >> 8) % PEOPLE];
        amount = uint96(amount % (2_000 * uint256(COIN)) + 1);
        bytes memory call;
        uint256 verb = (seed >> 24) % 6;
        if (verb > 3) {
            if (verb == 4) call = abi.encodeCall(net.court.lodge, (operator, amount / 20));
            else call = abi.encodeCall(net.court.takeBack, (operator, amount / 20));
            _as(who, address(net.court), call);
            return;
        }
        if (verb == 0) call = abi.encodeCall(net.staking.stake, (operator, amount, ""));
        else if (verb == 1) call = abi.encodeCall(net.staking.requestUnstake, (operator, amount));
        else if (verb == 2) call = abi.encodeCall(net.staking.finishUnstake, (operator));
        else call = abi.encodeCall(net.staking.unjail, (operator));
        _as(who, address(net.staking), call);
    }

    function accuse(uint256 seed) external {
        (, address who) = _who(seed);
        uint256 h = (seed >> 8) % PEOPLE;
        IAuditCourt.Receipt memory r;
        r.job = bytes32(seed % 5);
        r.agent = AGENT;
        r.terms = termsAt[0];
        r.host = people[h];
        r.signer = people[(seed >> 16) % PEOPLE];
        r.amount = COIN;
        r.issuedAt = uint64(block.timestamp);
        (uint8 v, bytes32 rr, bytes32 s) = vm.sign(_key(h), net.court.receiptDigest(r));
        bytes memory call = abi.encodeCall(net.court.open, (r, abi.encodePacked(rr, s, v)));
        if (_as(who, address(net.court), call)) {
            bytes32 id = net.court.disputeId(r.host, r.job, r.attempt, who);
            if (_receipts[id].issuedAt == 0) disputes.push(id);
            _receipts[id] = r;
            _firstRound[id] = net.court.disputes(id).round;
        }
    }

    /// @dev Brings a dispute one step on, as its phase asks; jurors of one dispute mostly agree.
    function judge(uint256 seed) external {
        if (disputes.length == 0) return;
        bytes32 id = disputes[seed % disputes.length];
        ICommittee.DisputeView memory d = net.court.disputes(id);
        if (d.phase == ICommittee.Phase.Drawing) {
            if (block.number <= d.drawBlock) vm.roll(d.drawBlock + 1);
            vm.setBlockhash(d.drawBlock, keccak256(abi.encode(id, d.drawBlock)));
            net.court.draw(id);
        } else if (d.phase == ICommittee.Phase.Voting) {
            _vote(id, d, seed);
        } else if (d.phase == ICommittee.Phase.Ruled) {
            address loser = d.verdict == GUILTY ? d.accused : d.challenger;
            if ((seed >> 24) % 4 == 0) loser = people[(seed >> 32) % PEOPLE];
            if ((seed >> 8) % 4 == 0) _as(loser, address(net.court), abi.encodeCall(net.court.appeal, (id)));
            if (block.timestamp >= d.appealBy) {
                net.court.execute(id);
                if (d.verdict == GUILTY) ++slashes;
            } else if ((seed >> 16) % 2 == 0) {
                vm.warp(d.appealBy);
            }
        }
    }

    function auction(uint256 seed) external {
        (, address who) = _who(seed);
        uint32 epoch = net.shareAuctions.currentEpoch() + uint32((seed >> 8) % 2);
        bytes32 id = net.shareAuctions.auctionId(AGENT, epoch);
        uint16 bps = uint16(uint256(keccak256(abi.encode(who, epoch))) % 300 + 1);
        bytes memory call;
        uint256 verb = (seed >> 24) % 5;
        if (verb == 0) {
            (who, call) =
            (
                people[0],
                abi.encodeCall(
                    net.shareAuctions.open, (AGENT, epoch, 2, uint8(seed % 3 + 1), 300, _base, 0, new bytes[](0))
                )
            );
        } else if (verb < 3) {
            call = abi.encodeCall(net.shareAuctions.commit, (id, net.shareAuctions.sealOf(id, who, bps, SALT)));
        } else if (verb == 3) {
            call = abi.encodeCall(net.shareAuctions.reveal, (id, bps, SALT, _base));
        } else {
            _settleAuction(id, epoch);
            return;
        }
        if (_as(who, address(net.shareAuctions), call) && verb == 0) epochs.push(epoch);
    }

    function promote(uint256 seed) external {
        (, address who) = _who(seed);
        uint32 epoch = net.promotionAuctions.currentEpoch() + uint32((seed >> 8) % 2);
        uint8 slot = uint8((seed >> 16) % 2);
        uint96 amount = uint96(uint256(keccak256(abi.encode(who, epoch, slot))) % (500 * uint256(COIN)));
        bytes memory call;
        uint256 verb = (seed >> 24) % 4;
        if (verb < 2) {
            bytes32 seal = net.promotionAuctions.sealOf(epoch, slot, who, AGENT, amount, SALT);
            call = abi.encodeCall(net.promotionAuctions.commit, (epoch, slot, seal));
        } else if (verb == 2) {
            call = abi.encodeCall(net.promotionAuctions.reveal, (epoch, slot, AGENT, amount, SALT));
        } else {
            call = abi.encodeCall(net.promotionAuctions.settle, (epoch, slot));
        }
        if (_as(who, address(net.promotionAuctions), call)) epochs.push(epoch);
    }

    function lease(uint256 seed, uint32 served) external {
        (, address who) = _who(seed);
        uint256 verb = (seed >> 24) % 8;
        if (verb == 0 || leaseIds.length == 0) {
            uint40 start = uint40(block.timestamp + 1 + seed % 1_000);
            ILeases.Request memory r =
                ILeases.Request(address(0), AGENT, uint32(seed % 3 + 1), start, 5_000, 1e12, 7 * COIN, 5 * COIN, start);
            bytes32 id = net.leases.leaseId(net.leases.count());
            if (!_as(who, address(net.leases), abi.encodeCall(net.leases.bid, (r)))) return;
            leaseIds.push(id);
            address host = people[(seed >> 40) % PEOPLE];
            if (seed % 4 != 0) _as(host, address(net.leases), abi.encodeCall(net.leases.accept, (id, host)));
            return;
        }
        bytes32 lease_ = leaseIds[seed % leaseIds.length];
        ILeases.Lease memory l = net.leases.leases(lease_);
        address party = (seed >> 32) % 4 == 0 ? who : verb == 1 || verb == 4 ? l.tenant : l.host;
        bytes memory call;
        if (verb == 1) {
            call = abi.encodeCall(net.leases.cancel, (lease_));
        } else if (verb == 2) {
            (party, call) = (who, abi.encodeCall(net.leases.accept, (lease_, who)));
        } else if (verb == 3) {
            call = abi.encodeCall(net.leases.quit, (lease_));
        } else if (verb == 4) {
            call = abi.encodeCall(net.leases.vacate, (lease_));
        } else if (verb == 5) {
            call = abi.encodeCall(net.leases.finish, (lease_));
        } else {
            call =
                abi.encodeCall(net.leases.collect, (lease_, served % 5_001, _served(l.tenant, lease_, served % 5_001)));
        }
        if (_as(party, address(net.leases), call) && verb >= 3 && verb <= 5) ++penalties;
    }

    /// @dev A hostile governor, through the timelock: whatever it writes moves no money.
    function govern(uint256 seed) external {
        IParameters.CourtParams memory p;
        (, p) = net.parameters.court();
        p.bond = uint96(seed % (800 * uint256(COIN)) + 1);
        p.voteDeposit = uint96((seed >> 64) % (40 * uint256(COIN)) + 1);
        p.slashBps = uint16((seed >> 96) % 10_001);
        p.appealWindow = uint32((seed >> 112) % 200_000);
        bytes memory call = abi.encodeCall(net.parameters.setCourt, (p));
        bytes32 before = _moneyOf();
        bytes32 salt = bytes32(seed);
        try net.timelock.schedule(address(net.parameters), 0, call, 0, salt, 2 days) {
            vm.warp(block.timestamp + 2 days);
            try net.timelock.execute(address(net.parameters), 0, call, 0, salt) {
                ++versions;
            } catch {}
        } catch {}
        if (_moneyOf() != before) governorMovedMoney = true;
    }

    /// @dev Owns nothing, signs nothing, and tries everybody's verbs with everybody's names.
    function steal(uint256 seed) external {
        address host = people[seed % PEOPLE];
        bytes32 terms = termsAt[(seed >> 8) % termsAt.length];
        uint256 verb = (seed >> 24) % 13;
        if (verb == 12) _as(thief, address(net.court), abi.encodeCall(net.court.takeBack, (host, COIN)));
        if (verb == 0) _as(thief, address(net.settlement), abi.encodeCall(net.settlement.setPayout, (host, thief)));
        if (verb == 1) {
            _as(thief, address(net.settlement), abi.encodeCall(net.settlement.startClose, (host, host, terms, 0)));
        }
        if (verb == 2) _as(thief, address(net.settlement), abi.encodeCall(net.settlement.depositFor, (thief, COIN)));
        if (verb == 3) _as(thief, address(net.staking), abi.encodeCall(net.staking.requestUnstake, (host, COIN)));
        if (verb == 4) _as(thief, address(net.staking), abi.encodeCall(net.staking.slash, (host, COIN, 0)));
        if (verb == 5) {
            _as(thief, address(net.registry), abi.encodeCall(net.registry.agreeAuctioned, (AGENT, _base, 1)));
        }
        if (verb == 6) _as(thief, address(net.registry), abi.encodeCall(net.registry.adopt, (AGENT, bytes32(seed))));
        if (verb == 7) _as(thief, address(net.leases), abi.encodeCall(net.leases.collectUnpaid, (thief)));
        if (verb == 8) _as(thief, address(net.court), abi.encodeCall(net.court.collectUnpaid, (thief)));
        if (verb == 9) {
            _as(
                thief, address(net.settlement), abi.encodeCall(net.settlement.redeem, (thief, terms, 0, _garbage(seed)))
            );
        }
        if (verb == 10) {
            _as(thief, address(net.settlement), abi.encodeCall(net.settlement.authorize, (host, COIN, 2 ** 40 - 1, "")));
        }
        if (verb == 11) _as(thief, address(coin), abi.encodeCall(coin.transferFrom, (host, thief, COIN)));
    }

    function time(uint256 seed) external {
        vm.warp(block.timestamp + seed % (1 days));
        vm.roll(block.number + seed % 50 + 1);
    }

    // ---- what the invariants read

    function network() external view returns (Deploy.Network memory) {
        return net;
    }

    function termsCount() external view returns (uint256) {
        return termsAt.length;
    }

    function disputeCount() external view returns (uint256) {
        return disputes.length;
    }

    function leaseCount() external view returns (uint256) {
        return leaseIds.length;
    }

    /// @notice What the votes of a dispute have set aside.
    function setAside(bytes32 id) external view returns (uint256 sum) {
        uint32 last = net.court.disputes(id).round;
        for (uint32 n = _firstRound[id]; n <= last; ++n) {
            for (uint256 i = 0; i < PEOPLE; ++i) {
                bool cast = net.court.votes(id, n, people[i]).commitment != 0;
                if (cast) sum += net.court.paramsOf(id).voteDeposit;
            }
        }
    }

    function partiesOf(bytes32 terms) external view returns (IAgentRegistry.Party[] memory) {
        return _parties[terms];
    }

    function agent() external pure returns (bytes32) {
        return AGENT;
    }

    function contracts() public view returns (address[7] memory) {
        return [
            address(net.settlement),
            address(net.staking),
            address(net.court),
            address(net.lineageCourt),
            address(net.shareAuctions),
            address(net.promotionAuctions),
            address(net.leases)
        ];
    }

    // ---- how it is done

    function _key(uint256 i) private pure returns (uint256) {
        return 0x5000 + i;
    }

    function _who(uint256 seed) private view returns (uint256 i, address who) {
        i = (seed >> 128) % PEOPLE;
        who = people[i];
    }

    function _as(address who, address target, bytes memory call) private returns (bool done) {
        vm.prank(who);
        (done,) = target.call(call);
    }

    function _approveAll(address who) private {
        address[7] memory all = contracts();
        for (uint256 i = 0; i < all.length; ++i) {
            vm.prank(who);
            coin.approve(all[i], type(uint256).max);
        }
    }

    function _addTable(bytes32 terms, IAgentRegistry.Party[] memory parties) private {
        termsAt.push(terms);
        for (uint256 i = 0; i < parties.length; ++i) {
            _parties[terms].push(parties[i]);
        }
    }

    function _rows(uint256 i, address host, bytes32 terms, uint96 sum) private view returns (bytes memory call) {
        bytes memory locks = _row(i, sum, net.settlement.lockDigest(host, terms, 0, sum));
        uint96 part = sum * 2 / 3 + 1;
        bytes memory vouchers = _row(i, part, net.settlement.voucherDigest(host, terms, 0, part));
        vouchers = bytes.concat(vouchers, new bytes(76));
        return abi.encodeCall(net.settlement.lockAndRedeem, (host, terms, 0, locks, vouchers));
    }

    function _row(uint256 i, uint96 sum, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_key(i), digest);
        return abi.encodePacked(sum, r, bytes32(uint256(s) | (uint256(v - 27) << 255)));
    }

    function _garbage(uint256 seed) private pure returns (bytes memory) {
        return abi.encodePacked(uint96(seed), keccak256(abi.encode(seed)), keccak256(abi.encode(seed, 1)));
    }

    function _served(address tenant, bytes32 id, uint32 served) private view returns (bytes memory) {
        for (uint256 i = 0; i < PEOPLE; ++i) {
            if (people[i] != tenant) continue;
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(_key(i), net.leases.servedDigest(id, served));
            return abi.encodePacked(r, s, v);
        }
        return "";
    }

    function _vote(bytes32 id, ICommittee.DisputeView memory d, uint256 seed) private {
        address[] memory jurors = net.court.jurorsOf(id, d.round);
        address juror = jurors[(seed >> 40) % jurors.length];
        if (d.committed < d.seats && block.timestamp < d.commitBy) {
            for (uint256 i = 0; i < jurors.length; ++i) {
                // Mostly they agree; now and then one is outvoted, or says nothing.
                uint256 whim = (seed >> (8 * i)) % 6;
                if (whim == 0) continue;
                uint8 verdict = uint256(id) % 3 == 0 || whim == 1 ? 1 : GUILTY;
                bytes32 sealed_ = net.court.voteCommitment(id, d.round, jurors[i], verdict, SALT, SALT);
                _as(jurors[i], address(net.court), abi.encodeCall(net.court.commit, (id, sealed_)));
            }
        } else {
            for (uint256 i = 0; i < jurors.length; ++i) {
                for (uint8 said = 1; said <= GUILTY; ++said) {
                    _as(jurors[i], address(net.court), abi.encodeCall(net.court.reveal, (id, said, SALT, SALT)));
                }
            }
            if ((seed >> 48) % 4 == 0 && block.timestamp < d.revealBy) vm.warp(d.revealBy);
            _as(juror, address(net.court), abi.encodeCall(net.court.tally, (id)));
        }
    }

    function _settleAuction(bytes32 id, uint32 epoch) private {
        uint32 due = epochs.length == 0 ? epoch : epochs[epochs.length - 1];
        id = net.shareAuctions.auctionId(AGENT, due);
        try net.shareAuctions.settle(id, _base) returns (bytes32 terms) {
            if (terms == 0) return;
            address[] memory winners = net.shareAuctions.winnersOf(id);
            uint256 each = (uint256(net.shareAuctions.auctions(id).seats) * 300);
            (, uint16 royalty,,,) = net.registry.terms(terms);
            uint16 clearing = _clearing(id, winners.length);
            IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](2 + winners.length);
            parties[0] = IAgentRegistry.Party(people[0], 1, uint16(1_000 + each - winners.length * clearing));
            parties[1] = _base[1];
            for (uint256 i = 0; i < winners.length; ++i) {
                parties[2 + i] = IAgentRegistry.Party(winners[i], 2, clearing);
            }
            vm.assertEq(net.registry.termsId(AGENT, parties), terms, "the table is the one that anybody can compute");
            vm.assertEq(uint256(royalty), 1_333 + each, "what was put up is what is shared");
            _addTable(terms, parties);
            ++auctioned;
        } catch {}
    }

    function _clearing(bytes32 id, uint256 winners) private view returns (uint16) {
        uint256 seats = net.shareAuctions.auctions(id).seats;
        return net.shareAuctions.leading(id).length > winners && winners == seats
            ? net.shareAuctions.leading(id)[seats].bps
            : 300;
    }

    function _moneyOf() private view returns (bytes32 hash) {
        address[7] memory all = contracts();
        for (uint256 i = 0; i < all.length; ++i) {
            hash = keccak256(abi.encode(hash, coin.balanceOf(all[i])));
        }
        for (uint256 i = 0; i < PEOPLE; ++i) {
            hash = keccak256(abi.encode(hash, coin.balanceOf(people[i])));
        }
    }
}
