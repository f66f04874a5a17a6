// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {Coins} from "./Coins.sol";
import {Epochs} from "./Epochs.sol";
import {Payments} from "./Payments.sol";
import {Rows} from "./Rows.sol";
import {Seals} from "./Seals.sol";
import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {IShareAuctions} from "./interfaces/IShareAuctions.sol";

/// @title Who gets which share of an agent's revenue, by auction
/// @notice Holds the deposits of bids that are still sealed, nothing else. Every verb writes its books before it moves a coin.
contract ShareAuctions is Epochs, Payments, IShareAuctions {
    using Coins for IERC20;
    using Seals for uint256;

    uint8 private constant HOSTS = 0;
    uint8 private constant LAST_ROLE = 4;
    uint8 private constant MAX_SEATS = 8;
    uint256 private constant MAX_PARTIES = 16;
    uint256 private constant WHOLE_BPS = 10_000;

    IAgentRegistry public immutable registry;
    IParameters public immutable parameters;

    mapping(bytes32 id => Auction) private _auctions;
    mapping(bytes32 id => mapping(address bidder => uint256 word)) private _bids;
    /// @dev The best opened bids in no order, one more than there are seats.
    mapping(bytes32 id => Bid[MAX_SEATS + 1]) private _leading;
    mapping(bytes32 id => bytes32 terms) private _terms;

    constructor(IERC20 coin_, IAgentRegistry registry_, IParameters parameters_, uint40 genesis_, uint32 epochLength_)
        Epochs(genesis_, epochLength_)
        Payments(coin_)
    {
        require(registry_.auctions() == address(this), IAgentRegistry.NotAuctions(address(this)));
        registry = registry_;
        parameters = parameters_;
    }

    /// @inheritdoc IShareAuctions
    function open(
        bytes32 agent,
        uint32 epoch,
        uint8 role,
        uint8 seats,
        uint16 reserveBps,
        IAgentRegistry.Party[] calldata base,
        uint40 deadline,
        bytes[] calldata consents
    ) external returns (bytes32 id) {
        Auction memory auction = Auction(State.Open, role, seats, reserveBps, epoch, 0, 0, 0, agent, 0);
        return _open(auction, base, deadline, consents);
    }

    /// @inheritdoc IShareAuctions
    function commit(bytes32 id, bytes32 seal) external {
        Auction storage auction = _auctions[id];
        require(auction.state == State.Open, WrongAuction(id));
        _requireCommitting(auction.epoch);
        require(_bids[id][msg.sender] == 0, BidTaken(msg.sender));
        uint32 order = ++auction.committed;
        uint256 word = Seals.pack(seal, order);
        require(word != 0, BadReveal());
        _bids[id][msg.sender] = word;
        emit ShareSealed(id, msg.sender, order);
        coin.pull(msg.sender, auction.deposit);
    }

    /// @inheritdoc IShareAuctions
    function reveal(bytes32 id, uint16 bps, bytes32 salt, IAgentRegistry.Party[] calldata base) external {
        Auction memory auction = _opened(id, base);
        _requireRevealing(auction.epoch);
        uint256 word = _bids[id][msg.sender];
        require(word.holds(sealOf(id, msg.sender, bps, salt)), BadReveal());
        require(bps != 0 && bps <= auction.reserveBps, OverReserve(auction.reserveBps));
        require(!_isParty(base, auction.role, msg.sender), BidTaken(msg.sender));
        _bids[id][msg.sender] = word.orderOf();
        _auctions[id].revealed = auction.revealed + 1;
        _rank(id, auction, Bid(msg.sender, bps, word.orderOf()));
        emit ShareRevealed(id, msg.sender, bps);
        _send(msg.sender, auction.deposit);
    }

    /// @inheritdoc IShareAuctions
    function settle(bytes32 id, IAgentRegistry.Party[] calldata base) external returns (bytes32 terms) {
        Auction memory auction = _opened(id, base);
        _requireOver(auction.epoch);
        uint256 forfeited = uint256(auction.committed - auction.revealed) * auction.deposit;
        (address[] memory winners, uint16 clearingBps) = _clear(id, auction);
        if (winners.length != 0) terms = _agree(auction, _finalTable(auction, base, winners, clearingBps));
        _auctions[id].state = terms == 0 ? State.Void : State.Settled;
        if (terms == 0) {
            emit AuctionVoid(id, forfeited);
        } else {
            _terms[id] = terms;
            emit AuctionSettled(id, terms, clearingBps, winners, forfeited);
        }
        coin.destroy(forfeited);
    }

    /// @inheritdoc IShareAuctions
    function auctions(bytes32 id) external view returns (Auction memory) {
        return _auctions[id];
    }

    /// @inheritdoc IShareAuctions
    function leading(bytes32 id) external view returns (Bid[] memory) {
        return _sorted(id, _auctions[id]);
    }

    /// @inheritdoc IShareAuctions
    function bidOf(bytes32 id, address bidder) external view returns (uint32 order, bool revealed) {
        uint256 word = _bids[id][bidder];
        return (word.orderOf(), word.isOpened());
    }

    /// @inheritdoc IShareAuctions
    function termsOf(bytes32 agent, uint32 epoch) external view returns (bytes32) {
        return _terms[auctionId(agent, epoch)];
    }

    /// @inheritdoc IShareAuctions
    function winnersOf(bytes32 id) external view returns (address[] memory winners) {
        Auction memory auction = _auctions[id];
        if (auction.state == State.Settled) (winners,) = _clear(id, auction);
    }

    /// @inheritdoc IShareAuctions
    function auctionId(bytes32 agent, uint32 epoch) public pure returns (bytes32) {
        return keccak256(abi.encode(agent, epoch));
    }

    /// @inheritdoc IShareAuctions
    function sealOf(bytes32 id, address bidder, uint16 bps, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), id, bidder, bps, salt));
    }

    /// @dev An agent known to be gone before the epoch begins gets no auction; nor does an epoch of which nobody will see the end.
    function _requireOwnerInTime(bytes32 agent, uint32 epoch) private view {
        (address owner,,,,, uint32 sunsetAt,) = registry.agents(agent);
        require(owner == msg.sender, NotOwner(msg.sender));
        require(epoch != 0, BadAuction());
        require(block.timestamp < commitEnds(epoch), TooLate(commitEnds(epoch)));
        require(sunsetAt == 0 || sunsetAt > startOf(epoch), BadAuction());
        SafeCast.toUint32(startOf(epoch + 1));
    }

    /// @dev Whoever wins, the table is one that the registry takes: `sum` and `parties` are those of the base table, which it took.
    function _requireRoom(Auction memory auction, uint256 parties, uint256 sum) private pure {
        uint256 seats = auction.seats;
        uint256 reserve = auction.reserveBps;
        require(auction.role <= LAST_ROLE && seats != 0 && seats <= MAX_SEATS && reserve != 0, BadAuction());
        if (auction.role == HOSTS) {
            require(sum + reserve <= WHOLE_BPS, BadAuction());
        } else {
            require(sum + seats * reserve < WHOLE_BPS && parties + seats <= MAX_PARTIES, BadAuction());
        }
    }

    function _open(
        Auction memory auction,
        IAgentRegistry.Party[] calldata base,
        uint40 deadline,
        bytes[] calldata consents
    ) private returns (bytes32 id) {
        id = auctionId(auction.agent, auction.epoch);
        require(_auctions[id].state == State.None, AlreadyOpen(id));
        _requireOwnerInTime(auction.agent, auction.epoch);
        uint256 sum = registry.checkTable(auction.agent, msg.sender, base, deadline, consents);
        _requireRoom(auction, base.length, sum);
        (, IParameters.MarketParams memory params) = parameters.market();
        auction.deposit = params.shareDeposit;
        auction.base = Rows.tableHash(auction.agent, base);
        _auctions[id] = auction;
        emit AuctionOpened(
            id, auction.agent, auction.epoch, auction.role, auction.seats, auction.reserveBps, auction.deposit, base
        );
    }

    function _opened(bytes32 id, IAgentRegistry.Party[] calldata base) private view returns (Auction memory auction) {
        auction = _auctions[id];
        bool fits = auction.state == State.Open && auction.base == Rows.tableHash(auction.agent, base);
        require(fits, WrongAuction(id));
    }

    function _isParty(IAgentRegistry.Party[] calldata base, uint8 role, address bidder) private pure returns (bool) {
        for (uint256 i = 0; i < base.length; ++i) {
            if (base[i].payee == bidder && base[i].role == role) return true;
        }
        return false;
    }

    /// @dev Keeps the bid while there is room, or in place of the worst one that it beats. `auction` is as before this bid.
    function _rank(bytes32 id, Auction memory auction, Bid memory bid) private {
        Bid[MAX_SEATS + 1] storage bids = _leading[id];
        if (auction.revealed <= auction.seats) {
            bids[auction.revealed] = bid;
            return;
        }
        uint256 worst = 0;
        uint256 worstRank = 0;
        for (uint256 i = 0; i <= auction.seats; ++i) {
            uint256 rank = _rankOf(bids[i]);
            if (rank > worstRank) (worst, worstRank) = (i, rank);
        }
        if (_rankOf(bid) < worstRank) bids[worst] = bid;
    }

    /// @dev Lower is better: by price, then by order.
    function _rankOf(Bid memory bid) private pure returns (uint256) {
        return uint256(bid.bps) << 32 | bid.order;
    }

    function _sorted(bytes32 id, Auction memory auction) private view returns (Bid[] memory bids) {
        uint256 kept = uint256(auction.seats) + 1;
        if (auction.revealed < kept) kept = auction.revealed;
        bids = new Bid[](kept);
        for (uint256 i = 0; i < kept; ++i) {
            Bid memory bid = _leading[id][i];
            uint256 place = i;
            while (place != 0 && _rankOf(bid) < _rankOf(bids[place - 1])) {
                bids[place] = bids[place - 1];
                --place;
            }
            bids[place] = bid;
        }
    }

    /// @dev Uniform price: what the first loser asked, or the reserve when nobody lost.
    function _clear(bytes32 id, Auction memory auction)
        private
        view
        returns (address[] memory winners, uint16 clearingBps)
    {
        Bid[] memory bids = _sorted(id, auction);
        bool contested = bids.length > auction.seats;
        clearingBps = contested ? bids[auction.seats].bps : auction.reserveBps;
        winners = new address[](contested ? auction.seats : bids.length);
        for (uint256 i = 0; i < winners.length; ++i) {
            winners[i] = bids[i].bidder;
        }
    }

    /// @dev Parties always get together what was put up for auction: what the winners left of it goes to party 0. With the role of
    /// hosts that is all but what the host keeps.
    function _finalTable(
        Auction memory auction,
        IAgentRegistry.Party[] calldata base,
        address[] memory winners,
        uint16 clearingBps
    ) private pure returns (IAgentRegistry.Party[] memory table) {
        bool hosts = auction.role == HOSTS;
        table = new IAgentRegistry.Party[](base.length + (hosts ? 0 : winners.length));
        uint256 others = 0;
        for (uint256 i = 0; i < base.length; ++i) {
            table[i] = base[i];
            if (i != 0) others += base[i].bps;
        }
        if (hosts) {
            table[0].bps = uint16(WHOLE_BPS - clearingBps - others);
            return table;
        }
        uint256 saved = uint256(auction.seats) * auction.reserveBps - winners.length * clearingBps;
        table[0].bps = uint16(table[0].bps + saved);
        for (uint256 i = 0; i < winners.length; ++i) {
            table[base.length + i] = IAgentRegistry.Party(winners[i], auction.role, clearingBps);
        }
    }

    /// @dev Zero when it is too late for terms, or when the registry says why it takes none any more: the agent has sunset, or was
    /// adopted and the table pays an ancestor too little. A call that merely ran out of gas says nothing and ends here: else
    /// anybody could void an auction by sending too little.
    function _agree(Auction memory auction, IAgentRegistry.Party[] memory table) private returns (bytes32 terms) {
        uint256 end = startOf(auction.epoch + 1);
        if (block.timestamp >= end) return 0;
        try registry.agreeAuctioned(auction.agent, table, uint32(end)) returns (bytes32 id) {
            return id;
        } catch (bytes memory reason) {
            require(reason.length != 0, WrongAuction(auctionId(auction.agent, auction.epoch)));
        }
    }
}
