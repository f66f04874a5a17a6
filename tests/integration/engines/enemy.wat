(module
  (import "lading" "emit" (func $emit (param i32 i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "ran")
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func $deep (param i32) (result i32)
    (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.load (i32.const 0))))
  (func (export "call") (param $op i32) (param i32 i32 i32) (result i32)
    (local $what i32)
    (local.set $what (i32.load8_u (local.get $op)))
    ;; "g": grow to the whole address space, a page at a time
    (if (i32.eq (local.get $what) (i32.const 103)) (then
      (loop $more
        (if (i32.ne (memory.grow (i32.const 64)) (i32.const -1)) (then
          (br_if $more (i32.lt_u (memory.size) (i32.const 65000)))
          (call $emit (i32.const 0) (i32.const 3)))))))
    ;; "l": for ever
    (if (i32.eq (local.get $what) (i32.const 108)) (then (loop $on (br $on))))
    ;; "s": without a bottom
    (if (i32.eq (local.get $what) (i32.const 115)) (then
      (drop (call $deep (i32.const 0))) (call $emit (i32.const 0) (i32.const 3))))
    ;; "o": read outside of the memory
    (if (i32.eq (local.get $what) (i32.const 111)) (then
      (drop (i32.load (i32.const -16))) (call $emit (i32.const 0) (i32.const 3))))
    ;; "h": hand over what is not its own
    (if (i32.eq (local.get $what) (i32.const 104)) (then
      (call $emit (i32.const -4096) (i32.const 4096)) (call $emit (i32.const 0) (i32.const 3))))
    ;; "f": words without end
    (if (i32.eq (local.get $what) (i32.const 102)) (then
      (loop $on (call $emit (i32.const 0) (i32.const 3)) (br $on))))
    (i32.const 0)))
