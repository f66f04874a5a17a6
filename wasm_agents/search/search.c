// Ranks passages against a query: the cosine of their vectors, from the host's embedding model "embedder".
//
// ABI 1 of core modules: see docs/agents/wasm.md. No C library: what is needed of one is below. A long passage is cut
// into windows that the model can take, and counts as its best window.

typedef unsigned char byte;
typedef unsigned long size_t;

#define HOST(name) __attribute__((import_module("lading"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

HOST(emit) void emit(const byte *at, size_t length);
HOST(fail) void fail(const byte *at, size_t length);
HOST(embed)
int embed(const char *alias, size_t alias_length, const byte *text, size_t length, float *out, size_t room);

enum { WIDTH = 4096, WINDOW = 480, MOST = 512, DEPTH = 16, PAGE = 65536 };

typedef struct {
  const byte *at, *end;
} Reader;

typedef struct {
  byte *at;
  size_t length;
} Text;

static const char ALIAS[] = "embedder";
static float query_vector[WIDTH], vector[WIDTH];
static Text passages[MOST];
static float scores[MOST];
extern byte __heap_base;
static byte *free_at = &__heap_base;

void *memcpy(void *to, const void *from, size_t length) {
  byte *out = to;
  const byte *in = from;
  while (length--) *out++ = *in++;
  return to;
}

// Never freed: the instance lives for one call.
EXPORT(alloc) byte *alloc(size_t length) {
  byte *given = free_at;
  size_t end = (size_t)given + ((length + 15) & ~15ul);
  size_t have = __builtin_wasm_memory_size(0) * PAGE;
  if (end < (size_t)given) __builtin_trap();
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) __builtin_trap();
  free_at = (byte *)end;
  return given;
}

static int refuse(const char *why) {
  size_t length = 0;
  while (why[length]) length++;
  fail((const byte *)why, length);
  return 1;
}

// A JSON reader that knows as much as this agent needs. 0 is "it does not read".

static byte peek(Reader *in) {
  while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\t' || *in->at == '\r')) in->at++;
  return in->at < in->end ? *in->at : 0;
}

static int expect(Reader *in, byte wanted) {
  if (peek(in) != wanted) return 0;
  in->at++;
  return 1;
}

static int hex(Reader *in, unsigned *out) {
  unsigned value = 0;
  if (in->end - in->at < 4) return 0;
  for (int i = 0; i < 4; i++) {
    byte c = *in->at++;
    unsigned digit = c <= '9' ? c - '0' : (c | 32) - 'a' + 10u;
    if (digit > 15) return 0;
    value = value * 16 + digit;
  }
  *out = value;
  return 1;
}

static byte *put(byte *out, unsigned c) {
  if (c < 0x80) {
    *out++ = c;
  } else if (c < 0x800) {
    *out++ = 0xC0 | c >> 6;
    *out++ = 0x80 | (c & 63);
  } else if (c < 0x10000) {
    *out++ = 0xE0 | c >> 12;
    *out++ = 0x80 | (c >> 6 & 63);
    *out++ = 0x80 | (c & 63);
  } else {
    *out++ = 0xF0 | c >> 18;
    *out++ = 0x80 | (c >> 12 & 63);
    *out++ = 0x80 | (c >> 6 & 63);
    *out++ = 0x80 | (c & 63);
  }
  return out;
}

static byte *escape(Reader *in, byte *out) {
  static const char from[] = "ntrbf\"\\/", to[] = "\n\t\r\b\f\"\\/";
  unsigned c, low;
  if (in->at == in->end) return 0;
  byte kind = *in->at++;
  if (kind != 'u') {
    for (int i = 0; from[i]; i++)
      if (from[i] == kind) {
        *out++ = to[i];
        return out;
      }
    return 0;
  }
  if (!hex(in, &c)) return 0;
  if (c >> 10 == 0x36 && in->end - in->at >= 6 && in->at[0] == '\\' && in->at[1] == 'u') {
    in->at += 2;
    if (!hex(in, &low)) return 0;
    c = 0x10000 + ((c & 0x3FF) << 10 | (low & 0x3FF));
  }
  return put(out, c >> 11 == 0x1B ? 0xFFFD : c);
}

static int string(Reader *in, Text *text) {
  if (!expect(in, '"')) return 0;
  const byte *closing = in->at;
  while (closing < in->end && *closing != '"') closing += *closing == '\\' ? 2 : 1;
  if (closing >= in->end) return 0;
  byte *out = text->at = alloc(closing - in->at + 4);
  while (*in->at != '"') {
    if (*in->at != '\\') {
      *out++ = *in->at++;
      continue;
    }
    in->at++;
    if (!(out = escape(in, out))) return 0;
  }
  in->at++;
  text->length = out - text->at;
  return 1;
}

static int skip(Reader *in, int depth) {
  Text ignored;
  byte c = peek(in);
  if (c == '"') return string(in, &ignored);
  if (c != '{' && c != '[') {
    const byte *begin = in->at;
    while (in->at < in->end && *in->at != ',' && *in->at != '}' && *in->at != ']') in->at++;
    return in->at > begin;
  }
  if (depth == DEPTH) return 0;
  in->at++;
  byte close = c == '{' ? '}' : ']';
  while ((c = peek(in)) != close) {
    if (!c) return 0;
    if (c == ',' || c == ':')
      in->at++;
    else if (!skip(in, depth + 1))
      return 0;
  }
  in->at++;
  return 1;
}

static int same(Text text, const char *name) {
  for (size_t i = 0; i < text.length; i++)
    if (name[i] != (char)text.at[i]) return 0;
  return name[text.length] == 0;
}

static int count(Reader *in, int *out) {
  int value = 0, any = 0;
  for (peek(in); in->at < in->end && *in->at >= '0' && *in->at <= '9' && value < MOST; any = 1)
    value = value * 10 + *in->at++ - '0';
  *out = value;
  return any;
}

static int list(Reader *in, int *number) {
  if (!expect(in, '[')) return 0;
  if (expect(in, ']')) return 1;
  do
    if (*number == MOST || !string(in, &passages[(*number)++])) return 0;
  while (expect(in, ','));
  return expect(in, ']');
}

static int request(Reader *in, Text *query, int *number, int *top) {
  Text name;
  if (!expect(in, '{')) return 0;
  do {
    if (!string(in, &name) || !expect(in, ':')) return 0;
    int read = same(name, "query")      ? string(in, query)
               : same(name, "passages") ? list(in, number)
               : same(name, "top")      ? count(in, top)
                                        : skip(in, 0);
    if (!read) return 0;
  } while (expect(in, ','));
  return expect(in, '}') && query->length && *number;
}

// Where a window that begins at `at` ends: at a space if there is one, and never inside a character.
static size_t window(Text text, size_t at) {
  if (text.length - at <= WINDOW) return text.length;
  size_t end = at + WINDOW, space = end;
  while (space > at + WINDOW / 2 && text.at[space] != ' ') space--;
  if (text.at[space] == ' ') return space;
  while ((text.at[end] & 0xC0) == 0x80) end--;
  return end;
}

static int look_up(const byte *text, size_t length, float *out) {
  return embed(ALIAS, sizeof ALIAS - 1, text, length, out, WIDTH);
}

static int score(Text text, int width, float *best) {
  *best = -1;
  for (size_t at = 0, end; at < text.length; at = end) {
    end = window(text, at);
    if (look_up(text.at + at, end - at, vector) != width) return 0;
    float sum = 0;
    for (int i = 0; i < width; i++) sum += query_vector[i] * vector[i];
    if (sum > *best) *best = sum;
  }
  return 1;
}

static void say(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  emit((const byte *)text, length);
}

static void say_number(int value) {
  byte digits[12], *at = digits + sizeof digits;
  do *--at = '0' + value % 10;
  while (value /= 10);
  emit(at, digits + sizeof digits - at);
}

// Hundredths: more digits would differ from one processor to the next.
static void say_score(float value) {
  int hundredths = (int)(value * 100 + (value < 0 ? -0.5f : 0.5f));
  if (hundredths < 0) say("-");
  if (hundredths < 0) hundredths = -hundredths;
  say_number(hundredths / 100);
  say(hundredths % 100 < 10 ? ".0" : ".");
  say_number(hundredths % 100);
}

static void say_results(int number, int top) {
  say("{\"results\":[");
  for (int place = 0; place < top && place < number; place++) {
    int best = 0;
    for (int i = 1; i < number; i++)
      if (scores[i] > scores[best]) best = i;
    say(place ? ",{\"passage\":" : "{\"passage\":");
    say_number(best);
    say(",\"score\":");
    say_score(scores[best]);
    say("}");
    scores[best] = -2;
  }
  say("]}");
}

EXPORT(call) int call(const byte *name, size_t name_length, const byte *input, size_t length) {
  Reader in = {input, input + length};
  Text query = {0, 0}, operation = {(byte *)name, name_length};
  int number = 0, top = 3;
  if (!same(operation, "search")) return refuse("this agent does 'search'");
  if (!request(&in, &query, &number, &top))
    return refuse("the input is {\"query\": \"...\", \"passages\": [\"...\"], \"top\": 3}, of at most 512 passages");
  int width = look_up(query.at, window(query, 0), query_vector);
  if (width <= 0) return refuse("the embedding model does not take this query");
  for (int i = 0; i < number; i++)
    if (!score(passages[i], width, &scores[i])) return refuse("the embedding model does not take one of the passages");
  say_results(number, top);
  return 0;
}
