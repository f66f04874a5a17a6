// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice A coin that does what a coin must not: takes a fee, freezes holders, calls somebody while it moves.
contract TricksterCoin is ERC20 {
    uint256 public fee;
    mapping(address holder => bool) public frozen;
    Puppet public hook;

    error Frozen(address holder);

    constructor(uint256 supply) ERC20("Trickster", "TRICK") {
        _mint(msg.sender, supply);
    }

    function setFee(uint256 fee_) external {
        fee = fee_;
    }

    function freeze(address holder, bool frozen_) external {
        frozen[holder] = frozen_;
    }

    function setHook(Puppet hook_) external {
        hook = hook_;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!frozen[from] && !frozen[to], Frozen(to));
        if (fee != 0 && from != address(0)) {
            super._update(from, address(0), fee);
            value -= fee;
        }
        super._update(from, to, value);
        if (address(hook) != address(0)) hook.strike();
    }
}

/// @notice An account that calls what it is told, again from inside its own calls when the coin lets it, and signs as its master's key.
contract Puppet is IERC1271 {
    address private immutable MASTER;
    address private target;
    bytes private blow;
    uint256 public strikes;
    uint256 public landed;
    bool public mute;

    constructor(address master) {
        MASTER = master;
    }

    function run(address to, bytes memory data) public returns (bytes memory) {
        (bool done, bytes memory answer) = to.call(data);
        if (!done) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
        return answer;
    }

    /// @notice What to call from inside the next transfers.
    function arm(address to, bytes memory data) external {
        (target, blow) = (to, data);
    }

    function disarm() external {
        target = address(0);
    }

    function strike() external {
        if (target == address(0)) return;
        ++strikes;
        address to = target;
        target = address(0);
        (bool done,) = to.call(blow);
        if (done) ++landed;
        target = to;
    }

    /// @notice A wallet may stop accepting what it accepted.
    function silence() external {
        mute = true;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecoverCalldata(hash, signature);
        return signer == MASTER && !mute ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}
