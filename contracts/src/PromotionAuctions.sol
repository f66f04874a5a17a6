// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Coins} from "./Coins.sol";
import {Epochs} from "./Epochs.sol";
import {Payments} from "./Payments.sol";
import {Seals} from "./Seals.sol";
import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {IPromotionAuctions} from "./interfaces/IPromotionAuctions.sol";

/// @title Which agents the index shows first, by auction
/// @notice Holds the deposits of bids that are still sealed, and of every slot not yet settled the best bid. Every verb writes its
/// books before it moves a coin.
contract PromotionAuctions is Epochs, Payments, IPromotionAuctions {
    using Coins for IERC20;
    using Seals for uint256;

    /// @dev One slot. `price` is the reserve until somebody is beaten.
    struct Head {
        bool settled;
        uint32 version;
        uint32 committed;
        uint32 revealed;
        uint32 bestOrder;
        uint96 price;
    }

    struct Best {
        address winner;
        uint96 amount;
        bytes32 agent;
    }

    /// @dev What a version of the parameters says, kept at its first use because asking for it again costs more than a bid's seal.
    struct Fees {
        bool known;
        uint96 deposit;
        uint16 lineageBps;
    }

    uint256 private constant WHOLE_BPS = 10_000;
    /// @dev No parameters allow more slots.
    uint256 private constant MAX_SLOTS = 32;

    IAgentRegistry public immutable registry;
    IParameters public immutable parameters;

    mapping(uint32 version => Fees) private _fees;
    mapping(uint256 key => Head) private _heads;
    mapping(uint256 key => Best) private _bests;
    mapping(uint256 key => mapping(address bidder => uint256 word)) private _bids;

    constructor(IERC20 coin_, IAgentRegistry registry_, IParameters parameters_, uint40 genesis_, uint32 epochLength_)
        Epochs(genesis_, epochLength_)
        Payments(coin_)
    {
        registry = registry_;
        parameters = parameters_;
    }

    /// @inheritdoc IPromotionAuctions
    function commit(uint32 epoch, uint8 slot, bytes32 seal) external {
        _requireCommitting(epoch);
        uint256 key = _key(epoch, slot);
        Head memory head = _heads[key];
        if (head.committed == 0) (head.version, head.price) = _freeze(slot);
        else require(_bids[key][msg.sender] == 0, BidTaken(msg.sender));
        uint32 order = ++head.committed;
        uint256 word = Seals.pack(seal, order);
        require(word != 0, BadReveal());
        _heads[key] = head;
        _bids[key][msg.sender] = word;
        emit PromotionSealed(epoch, slot, msg.sender, order);
        coin.pull(msg.sender, _fees[head.version].deposit);
    }

    /// @inheritdoc IPromotionAuctions
    function reveal(uint32 epoch, uint8 slot, bytes32 agent, uint96 amount, bytes32 salt) external {
        _requireRevealing(epoch);
        uint256 key = _key(epoch, slot);
        uint256 word = _bids[key][msg.sender];
        require(word.holds(sealOf(epoch, slot, msg.sender, agent, amount, salt)), BadReveal());
        _requireAgent(agent);
        _bids[key][msg.sender] = word.orderOf();
        emit PromotionRevealed(epoch, slot, msg.sender, agent, amount);
        (bool counts, uint96 deposit, address payee, uint96 back) = _enter(key, agent, amount, word.orderOf());
        if (counts) {
            coin.pull(msg.sender, amount);
            _send(payee, back);
        }
        _send(msg.sender, deposit);
    }

    /// @inheritdoc IPromotionAuctions
    function settle(uint32 epoch, uint8 slot) external {
        _requireOver(epoch);
        uint256 key = _key(epoch, slot);
        Head memory head = _heads[key];
        require(head.committed != 0 && !head.settled, NothingToSettle(epoch, slot));
        _heads[key].settled = true;
        Best memory best = _bests[key];
        Fees memory fees = _fees[head.version];
        uint256 forfeited = uint256(head.committed - head.revealed) * fees.deposit;
        uint96 price = best.winner == address(0) ? 0 : head.price;
        address above = _ownerAbove(best.agent);
        uint96 toLineage = above == address(0) ? 0 : uint96(uint256(price) * fees.lineageBps / WHOLE_BPS);
        uint96 destroyed = price - toLineage;
        emit Promoted(epoch, slot, best.agent, best.winner, price, toLineage, destroyed, forfeited);
        _send(best.winner, best.amount - price);
        _send(above, toLineage);
        coin.destroy(destroyed + forfeited);
    }

    /// @inheritdoc IPromotionAuctions
    function slots(uint32 epoch, uint8 slot) external view returns (Slot memory) {
        Head memory head = _heads[_key(epoch, slot)];
        Best memory best = _bests[_key(epoch, slot)];
        return Slot({
            settled: head.settled,
            version: head.version,
            committed: head.committed,
            revealed: head.revealed,
            winner: best.winner,
            best: best.amount,
            price: head.price,
            bestOrder: head.bestOrder,
            agent: best.agent
        });
    }

    /// @inheritdoc IPromotionAuctions
    function bidOf(uint32 epoch, uint8 slot, address bidder) external view returns (uint32 order, bool revealed) {
        uint256 word = _bids[_key(epoch, slot)][bidder];
        return (word.orderOf(), word.isOpened());
    }

    /// @inheritdoc IPromotionAuctions
    function promoted(uint32 epoch) external view returns (bytes32[] memory agents) {
        uint256 count = MAX_SLOTS;
        while (count != 0 && _bests[_key(epoch, uint8(count - 1))].winner == address(0)) --count;
        agents = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            agents[i] = _bests[_key(epoch, uint8(i))].agent;
        }
    }

    /// @inheritdoc IPromotionAuctions
    function sealOf(uint32 epoch, uint8 slot, address bidder, bytes32 agent, uint96 amount, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), epoch, slot, bidder, agent, amount, salt));
    }

    /// @dev What the slot is auctioned under from its first seal to its end.
    function _freeze(uint8 slot) private returns (uint32 version, uint96 reserve) {
        IParameters.MarketParams memory params;
        (version, params) = parameters.market();
        require(slot < params.promotionSlots, NoSuchSlot(params.promotionSlots));
        if (!_fees[version].known) _fees[version] = Fees(true, params.promotionDeposit, params.lineageBps);
        return (version, params.promotionReserve);
    }

    /// @dev Enters the caller's opened bid in the books. A bid that is best or sets the price `counts`: the caller pays it, and `payee`
    /// gets `back`: whoever was best so far, or the caller, who only shows that it had the money.
    function _enter(uint256 key, bytes32 agent, uint96 amount, uint32 order)
        private
        returns (bool counts, uint96 deposit, address payee, uint96 back)
    {
        Head memory head = _heads[key];
        Best memory best = _bests[key];
        deposit = _fees[head.version].deposit;
        ++head.revealed;
        if (best.winner == address(0) ? amount >= head.price : _beats(amount, order, best.amount, head.bestOrder)) {
            (counts, payee, back) = (true, best.winner, best.amount);
            if (best.winner != address(0)) head.price = best.amount;
            head.bestOrder = order;
            _bests[key] = Best(msg.sender, amount, agent);
        } else if (amount > head.price) {
            (counts, payee, back) = (true, msg.sender, amount);
            head.price = amount;
        }
        _heads[key] = head;
    }

    function _beats(uint96 amount, uint32 order, uint96 best, uint32 bestOrder) private pure returns (bool) {
        return amount > best || (amount == best && order < bestOrder);
    }

    function _requireAgent(bytes32 agent) private view {
        (address owner,,,,, uint32 sunsetAt,) = registry.agents(agent);
        bool lives = owner != address(0) && (sunsetAt == 0 || block.timestamp < sunsetAt);
        require(lives, UnknownAgent(agent));
    }

    /// @dev The owner of the agent's parent; zero if it has none.
    function _ownerAbove(bytes32 agent) private view returns (address owner) {
        if (agent == 0) return address(0);
        (, bytes32 parent,,,,,) = registry.agents(agent);
        if (parent != 0) (owner,,,,,,) = registry.agents(parent);
    }

    function _key(uint32 epoch, uint8 slot) private pure returns (uint256) {
        return uint256(epoch) << 8 | slot;
    }
}
