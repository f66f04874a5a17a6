"""A component of the world lading:agent/agent, written as text around the body of its `call`."""

from wasmtime import wat2wasm

# name: (interface, its declaration there, the core type)
FUNCTIONS = {
    "emit": ("lading:agent/host@1.0.0", 'emit" (func (param "text" string))', "(param i32 i32)"),
    "chance": ("wasi:random/random@0.2.3", 'get-random-u64" (func (result u64))', "(result i64)"),
    "ticks": ("wasi:clocks/monotonic-clock@0.2.3", 'now" (func (result u64))', "(result i64)"),
    "sleep": ("wasi:clocks/monotonic-clock@0.2.3", 'resolution" (func (result u64))', "(result i64)"),
    "exit": ("wasi:cli/exit@0.2.3", 'exit" (func (param "status" (result)))', "(param i32)"),
    "wrong": ("lading:agent/host@1.0.0", 'emit" (func (param "text" (list u8)))', "(param i32 i32)"),
    "other": ("lading:agent/host@1.0.0", 'spy" (func (param "text" string))', "(param i32 i32)"),
    "http": ("wasi:http/outgoing-handler@0.2.3", 'handle" (func (param "text" string))', "(param i32 i32)"),
}
# Answers with the eight bytes at 64 as sixteen letters.
SAY = """(loop $l
    (i32.store8 (i32.add (i32.const 256) (i32.mul (local.get $i) (i32.const 2)))
      (i32.add (i32.const 97) (i32.and (i32.load8_u (i32.add (i32.const 64) (local.get $i))) (i32.const 15))))
    (i32.store8 (i32.add (i32.const 257) (i32.mul (local.get $i) (i32.const 2)))
      (i32.add (i32.const 97) (i32.shr_u (i32.load8_u (i32.add (i32.const 64) (local.get $i))) (i32.const 4))))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $l (i32.lt_u (local.get $i) (i32.const 8))))
  (i32.store (i32.const 0) (i32.const 0))
  (i32.store (i32.const 4) (i32.const 256)) (i32.store (i32.const 8) (i32.const 16)) (i32.const 0)"""


def component(body: str, *names: str, result: str = "(result (result string (error string)))") -> bytes:
    """`body` sees $name, $name_length, $in, $in_length; it leaves where the result lies: a tag, a pointer, a length."""
    imports = "".join(
        f'(import "{FUNCTIONS[name][0]}" (instance $i_{name} (export "{FUNCTIONS[name][1]})))'
        f'(alias export $i_{name} "{FUNCTIONS[name][1].partition(chr(34))[0]}" (func $f_{name}))'
        f"(core func $c_{name} (canon lower (func $f_{name}) (memory $memory)))"
        for name in names
    )
    given = "".join(f'(export "{name}" (func $c_{name}))' for name in names)
    taken = "".join(f'(import "host" "{name}" (func ${name} {FUNCTIONS[name][2]}))' for name in names)
    return bytes(
        wat2wasm(f"""(component
      (core module $heap
        (memory (export "memory") 8) (global $at (mut i32) (i32.const 4096))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
          (global.get $at) (global.set $at (i32.add (global.get $at) (local.get 3)))))
      (core instance $heap (instantiate $heap))
      (alias core export $heap "memory" (core memory $memory))
      (alias core export $heap "realloc" (core func $realloc))
      {imports}
      (core module $main
        (import "heap" "memory" (memory 1)) {taken}
        (func (export "call") (param $name i32) (param $name_length i32) (param $in i32) (param $in_length i32)
          (result i32) (local $i i32) {body}))
      (core instance $main (instantiate $main (with "heap" (instance $heap)) (with "host" (instance {given}))))
      (func (export "call") (param "operation" string) (param "input" string) {result}
        (canon lift (core func $main "call") (memory $memory) (realloc $realloc))))""")
    )
