//! Finds e-mail addresses, phone numbers, card numbers (Luhn) and IBANs (mod 97) in a text and masks them.
//!
//! ABI 1 of core modules: see docs/agents/wasm.md. Standard library only.

use std::alloc::{alloc as take, Layout};

#[link(wasm_import_module = "lading")]
extern "C" {
    fn emit(at: *const u8, length: usize);
    fn fail(at: *const u8, length: usize);
}

const MOST_DEPTH: usize = 16;
const KINDS: [&str; 4] = ["email", "phone", "card", "iban"];

#[no_mangle]
pub extern "C" fn alloc(length: usize) -> *mut u8 {
    // Never freed: the instance lives for one call.
    unsafe { take(Layout::from_size_align_unchecked(length.max(1), 1)) }
}

/// # Safety
/// The host hands over what it wrote where `alloc` said.
#[no_mangle]
pub unsafe extern "C" fn call(name: *const u8, name_length: usize, input: *const u8, input_length: usize) -> i32 {
    let operation = std::slice::from_raw_parts(name, name_length);
    let input = std::slice::from_raw_parts(input, input_length);
    if operation != b"redact" {
        return refuse("this agent does 'redact'");
    }
    match Json::new(input).member("text") {
        Some(text) => say(&answer(&text)),
        None => return refuse("the input is {\"text\": \"...\"}"),
    }
    0
}

fn say(text: &str) {
    unsafe { emit(text.as_ptr(), text.len()) }
}

fn refuse(why: &str) -> i32 {
    unsafe { fail(why.as_ptr(), why.len()) }
    1
}

fn answer(text: &str) -> String {
    let (masked, found) = redact(text);
    let mut out = String::from("{\"found\":{");
    for (at, kind) in KINDS.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        out += &format!("{}\"{}\":{}", comma, kind, found[at]);
    }
    out += "},\"text\":";
    quote(&masked, &mut out);
    out.push('}');
    out
}

/// The masked text, and how many of each kind were found.
fn redact(text: &str) -> (String, [usize; 4]) {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut found = [0; 4];
    let mut at = 0;
    while at < bytes.len() {
        let fresh = at == 0 || !letter(bytes[at - 1]);
        let hit = if fresh { find(bytes, at) } else { None };
        match hit {
            Some((kind, end)) => {
                found[kind] += 1;
                out += &format!("[{}]", KINDS[kind]);
                at = end;
            }
            None => {
                let end = next_character(bytes, at);
                out += &text[at..end];
                at = end;
            }
        }
    }
    (out, found)
}

fn next_character(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] & 0xC0 == 0x80 {
        end += 1;
    }
    end
}

/// What begins at `at`: its kind (as in KINDS) and where it ends.
fn find(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    email(bytes, at)
        .map(|end| (0, end))
        .or_else(|| iban(bytes, at).map(|end| (3, end)))
        .or_else(|| card(bytes, at).map(|end| (2, end)))
        .or_else(|| phone(bytes, at).map(|end| (1, end)))
}

fn run(bytes: &[u8], at: usize, fits: impl Fn(u8) -> bool) -> usize {
    at + bytes[at..].iter().take_while(|byte| fits(**byte)).count()
}

/// Of a word in any script: what is not ASCII is taken for a letter.
fn letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

fn email(bytes: &[u8], at: usize) -> Option<usize> {
    let local = run(bytes, at, |b| letter(b) || b"._%+-".contains(&b));
    if local == at || bytes.get(local) != Some(&b'@') || bytes[at] == b'.' {
        return None;
    }
    let mut end = run(bytes, local + 1, |b| letter(b) || b".-".contains(&b));
    while end > local + 1 && b".-".contains(&bytes[end - 1]) {
        end -= 1;
    }
    let domain = &bytes[local + 1..end];
    let last = domain.rsplit(|b| *b == b'.').next()?;
    let plain = domain.contains(&b'.') && last.len() >= 2 && last.iter().all(|byte| letter(*byte) && !byte.is_ascii_digit());
    (plain && domain[0] != b'.').then(|| end)
}

/// Digits from `at` on, with at most one separator between two of them; where each number of digits would end.
fn digits(bytes: &[u8], at: usize, between: &[u8]) -> Vec<(u8, usize)> {
    let mut out = Vec::new();
    let mut here = at;
    while here < bytes.len() && out.len() < 40 {
        if bytes[here].is_ascii_digit() {
            out.push((bytes[here] - b'0', here + 1));
        } else if out.is_empty() || !between.contains(&bytes[here]) || !bytes[here - 1].is_ascii_digit() {
            break;
        }
        here += 1;
    }
    out
}

fn card(bytes: &[u8], at: usize) -> Option<usize> {
    let read = digits(bytes, at, b" -");
    if !(13..=19).contains(&read.len()) {
        return None;
    }
    let sum: u32 = read.iter().rev().enumerate().map(|(place, (digit, _))| luhn(place, *digit)).sum();
    (sum % 10 == 0 && read.iter().any(|(digit, _)| *digit != 0)).then(|| read[read.len() - 1].1)
}

fn luhn(place: usize, digit: u8) -> u32 {
    let doubled = u32::from(digit) << (place % 2);
    if doubled > 9 { doubled - 9 } else { doubled }
}

fn iban(bytes: &[u8], at: usize) -> Option<usize> {
    if at + 4 > bytes.len() || !bytes[at..at + 2].iter().all(u8::is_ascii_uppercase) {
        return None;
    }
    if !bytes[at + 2..at + 4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut read = Vec::new();
    let mut here = at;
    let mut best = None;
    while here < bytes.len() && read.len() < 34 {
        let byte = bytes[here];
        if byte.is_ascii_digit() || byte.is_ascii_uppercase() {
            read.push(byte);
        } else if byte != b' ' || bytes[here - 1] == b' ' {
            break;
        }
        here += 1;
        let whole = here == bytes.len() || !bytes[here].is_ascii_alphanumeric();
        if read.len() >= 15 && whole && byte != b' ' && remainder(&read) == 1 {
            best = Some(here);
        }
    }
    best
}

fn remainder(read: &[u8]) -> u32 {
    read[4..].iter().chain(&read[..4]).fold(0, |rest, byte| {
        if byte.is_ascii_digit() {
            (rest * 10 + u32::from(byte - b'0')) % 97
        } else {
            (rest * 100 + u32::from(byte - b'A') + 10) % 97
        }
    })
}

/// Begins with +, 00, 0 or an area code in brackets, and has 7 to 15 digits.
fn phone(bytes: &[u8], at: usize) -> Option<usize> {
    if !b"+0(".contains(&bytes[at]) {
        return None;
    }
    let mut count = 0;
    let mut end = at;
    let mut here = at;
    while here < bytes.len() {
        let byte = bytes[here];
        if byte.is_ascii_digit() {
            count += 1;
            end = here + 1;
        } else if !(b" -./()".contains(&byte) && here - end < 2 || byte == b'+' && here == at) {
            break;
        }
        here += 1;
    }
    let date = count == 8 && bytes[at..end].iter().filter(|byte| b"./-".contains(byte)).count() == 2;
    ((7..=15).contains(&count) && !date).then(|| end)
}

/// As much of a JSON reader as one member of an object needs.
struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Json { bytes, at: 0 }
    }

    /// A string member of the outermost object; None when there is none or the JSON is broken before it.
    fn member(&mut self, name: &str) -> Option<String> {
        self.expect(b'{')?;
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            if key == name {
                return self.string();
            }
            self.skip(0)?;
            self.expect(b',')?;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.at = run(self.bytes, self.at, |b| b" \t\r\n".contains(&b));
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    fn skip(&mut self, depth: usize) -> Option<()> {
        let (open, close) = match self.peek()? {
            b'"' => return self.string().map(drop),
            b'{' => (b'{', b'}'),
            b'[' => (b'[', b']'),
            _ => {
                self.at = run(self.bytes, self.at, |b| !b",]} \t\r\n".contains(&b));
                return Some(());
            }
        };
        if depth == MOST_DEPTH {
            return None;
        }
        self.expect(open)?;
        while self.peek()? != close {
            self.skip(depth + 1)?;
            if b",:".contains(&self.peek()?) {
                self.at += 1;
            }
        }
        self.expect(close)
    }

    fn string(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let mut out = Vec::new();
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(out).ok(),
                b'\\' => self.escape(&mut out)?,
                _ => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        let plain = match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'"' | b'\\' | b'/' => byte,
            b'u' => {
                let mut unit = self.unit()?;
                if (0xD800..0xDC00).contains(&unit) && self.bytes.get(self.at..self.at + 2) == Some(b"\\u") {
                    self.at += 2;
                    unit = 0x10000 + ((unit - 0xD800) << 10) + self.unit()?.wrapping_sub(0xDC00);
                }
                let mut buffer = [0; 4];
                let character = char::from_u32(unit).unwrap_or('\u{FFFD}');
                out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        out.push(plain);
        Some(())
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => *out += "\\\"",
            '\\' => *out += "\\\\",
            '\n' => *out += "\\n",
            '\r' => *out += "\\r",
            '\t' => *out += "\\t",
            c if (c as u32) < 0x20 => *out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}
