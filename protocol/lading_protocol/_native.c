/* What a compiled build does in C (lading_protocol.native): sha256 of few bytes, the rolling hash over tokens, and token
 * messages of the plainest kind. Each does what the Python beside it does, or leaves the work to it: `run` and `follow`
 * stop before whatever they do not know, and raise nothing of their own about a message.
 *
 * sha256 is FIPS 180-4, with the processor's own instructions where it has them. Messages are msgpack, as messages.Tokens
 * is written: an array of "t", the first index, the ids, the text and the rolling hash.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define DIGEST 32
#define BLOCK 64
#define MOST_IDS 4096
#define MOST_TEXT 4096 /* bytes: a longer one is Python's to look at */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const uint32_t FIRST[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

typedef void (*Compress)(uint32_t state[8], const uint8_t *blocks, size_t count);

static inline uint32_t read32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void write32(uint8_t *at, uint32_t value)
{
    at[0] = value >> 24;
    at[1] = value >> 16;
    at[2] = value >> 8;
    at[3] = value;
}

static inline uint32_t turned(uint32_t value, int by)
{
    return value >> by | value << (32 - by);
}

static void compress_anywhere(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    for (; count; count--, blocks += BLOCK) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++)
            w[i] = read32(blocks + 4 * i);
        for (int i = 16; i < 64; i++) {
            uint32_t x = w[i - 15], y = w[i - 2];
            w[i] = w[i - 16] + (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + w[i - 7] +
                   (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int i = 0; i < 64; i++) {
            uint32_t one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
            uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + one;
            d = c, c = b, b = a, a = one + two;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

/* The state as the instructions want it: words f e b a and h g d c, from the lowest. */
__attribute__((target("sha,sse4.1"))) static void compress_sha(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i ab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i eh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(ab, eh, 8), cdgh = _mm_blend_epi16(eh, ab, 0xf0);
    for (; count; count--, blocks += BLOCK) {
        __m128i w[4], abef_before = abef, cdgh_before = cdgh;
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(blocks + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) { /* four rounds each */
            if (i >= 4) {
                __m128i sum = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                sum = _mm_add_epi32(sum, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(sum, w[(i + 3) & 3]);
            }
            __m128i k = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static Compress best(void)
{
    unsigned a, b, c, d, ssse3_sse41 = 1u << 9 | 1u << 19;
    int wide = __get_cpuid(1, &a, &b, &c, &d) && (c & ssse3_sse41) == ssse3_sse41;
    return wide && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1 ? compress_sha : compress_anywhere;
}
#else
static Compress best(void)
{
    return compress_anywhere;
}
#endif

static Compress compress = compress_anywhere;

static void hash(const uint8_t *data, size_t size, uint8_t out[DIGEST])
{
    uint32_t state[8];
    uint8_t last[2 * BLOCK] = {0};
    size_t whole = size / BLOCK, rest = size % BLOCK, ends = rest < BLOCK - 8 ? 1 : 2;
    memcpy(state, FIRST, sizeof state);
    compress(state, data, whole);
    memcpy(last, data + whole * BLOCK, rest);
    last[rest] = 0x80;
    write32(last + ends * BLOCK - 8, (uint32_t)((uint64_t)size >> 29));
    write32(last + ends * BLOCK - 4, (uint32_t)(size << 3));
    compress(state, last, ends);
    for (int i = 0; i < 8; i++)
        write32(out + 4 * i, state[i]);
}

/* The rolling hash and one more token. */
static void step(uint8_t rolling[DIGEST], uint32_t id)
{
    uint32_t state[8];
    uint8_t block[BLOCK] = {0};
    memcpy(state, FIRST, sizeof state);
    memcpy(block, rolling, DIGEST);
    write32(block + DIGEST, id);
    block[DIGEST + 4] = 0x80;
    write32(block + BLOCK - 4, 8 * (DIGEST + 4));
    compress(state, block, 1);
    for (int i = 0; i < 8; i++)
        write32(rolling + 4 * i, state[i]);
}

/* sha256(data) -> bytes */
static PyObject *native_sha256(PyObject *module, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, DIGEST);
    if (made != NULL)
        hash(view.buf, (size_t)view.len, (uint8_t *)PyBytes_AS_STRING(made));
    PyBuffer_Release(&view);
    return made;
}

/* roll(state, ids) -> bytes */
static PyObject *native_roll(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_Check(args[0]) || PyBytes_GET_SIZE(args[0]) != DIGEST) {
        PyErr_SetString(PyExc_TypeError, "roll takes 32 bytes and ids");
        return NULL;
    }
    uint8_t rolling[DIGEST];
    memcpy(rolling, PyBytes_AS_STRING(args[0]), DIGEST);
    PyObject *ids = PySequence_Fast(args[1], "ids can be gone through");
    if (ids == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(ids); i++) {
        unsigned long id = PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(ids, i));
        if (id > UINT32_MAX) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_OverflowError, "int too big to convert");
            Py_DECREF(ids);
            return NULL;
        }
        step(rolling, (uint32_t)id);
    }
    Py_DECREF(ids);
    return PyBytes_FromStringAndSize((const char *)rolling, DIGEST);
}

/* One message of tokens, of which `at` points at what is not read yet, and `left` counts it. */
typedef struct {
    const uint8_t *at;
    size_t left;
} Reader;

static int take(Reader *reader, size_t size, const uint8_t **found)
{
    if (reader->left < size)
        return 0;
    *found = reader->at;
    reader->at += size;
    reader->left -= size;
    return 1;
}

static int take_number(Reader *reader, uint32_t *found)
{
    const uint8_t *at;
    if (!take(reader, 1, &at))
        return 0;
    switch (*at) {
    case 0xcc:
        if (!take(reader, 1, &at))
            return 0;
        *found = at[0];
        return 1;
    case 0xcd:
        if (!take(reader, 2, &at))
            return 0;
        *found = (uint32_t)at[0] << 8 | at[1];
        return 1;
    case 0xce:
        if (!take(reader, 4, &at))
            return 0;
        *found = read32(at);
        return 1;
    default:
        *found = *at;
        return *at < 0x80;
    }
}

/* How many ids, or bytes of text, follow: what stands in the head itself under `fixed`, or in the two bytes behind
 * `wide`; text may also have one byte, behind `narrow`. */
static int take_size(Reader *reader, uint8_t fixed, uint8_t mask, int narrow, uint8_t wide, size_t *found)
{
    const uint8_t *at;
    if (!take(reader, 1, &at))
        return 0;
    if ((*at & ~mask) == fixed) {
        *found = *at & mask;
        return 1;
    }
    if (*at == narrow) {
        if (!take(reader, 1, &at))
            return 0;
        *found = at[0];
        return 1;
    }
    if (*at != wide || !take(reader, 2, &at))
        return 0;
    *found = (size_t)at[0] << 8 | at[1];
    return 1;
}

typedef struct {
    uint32_t first;
    size_t count;
    Reader ids;
    const uint8_t *text;
    size_t size;
    const uint8_t *rolling;
} Tokens;

/* Whether these bytes are one message of the plainest kind, but for its text's being UTF-8. */
static int read_tokens(PyObject *payload, Tokens *found)
{
    static const uint8_t HEAD[3] = {0x95, 0xa1, 't'}, HASH[2] = {0xc4, DIGEST};
    const uint8_t *at;
    uint32_t id;
    if (!PyBytes_Check(payload))
        return 0;
    Reader reader = {(const uint8_t *)PyBytes_AS_STRING(payload), (size_t)PyBytes_GET_SIZE(payload)};
    if (!take(&reader, sizeof HEAD, &at) || memcmp(at, HEAD, sizeof HEAD) || !take_number(&reader, &found->first) ||
        !take_size(&reader, 0x90, 0x0f, -1, 0xdc, &found->count) || !found->count || found->count > MOST_IDS)
        return 0;
    found->ids = reader;
    for (size_t i = 0; i < found->count; i++)
        if (!take_number(&reader, &id))
            return 0;
    return take_size(&reader, 0xa0, 0x1f, 0xd9, 0xda, &found->size) && found->size <= MOST_TEXT &&
           take(&reader, found->size, &found->text) && take(&reader, sizeof HASH, &at) &&
           !memcmp(at, HASH, sizeof HASH) && take(&reader, DIGEST, &found->rolling) && !reader.left;
}

static int is_text(const uint8_t *text, size_t size)
{
    uint8_t high = 0;
    for (size_t i = 0; i < size; i++)
        high |= text[i];
    if (high < 0x80)
        return 1;
    PyObject *read = PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)size, NULL);
    if (read == NULL)
        PyErr_Clear();
    Py_XDECREF(read);
    return read != NULL;
}

/* run(payloads, at, most) -> int */
static PyObject *native_run(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "run takes a list of bytes, a place in it and a number");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(args[1]), most = PyLong_AsSsize_t(args[2]), found = 0;
    if (PyErr_Occurred())
        return NULL;
    Tokens tokens;
    while (at >= 0 && found < most && at + found < PyList_GET_SIZE(args[0]) &&
           read_tokens(PyList_GET_ITEM(args[0], at + found), &tokens) && is_text(tokens.text, tokens.size))
        found++;
    return PyLong_FromSsize_t(found);
}

/* follow(payloads, due, most, rolling) -> (ids, text, rolling, frames) */
static PyObject *native_follow(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyList_Check(args[0]) || !PyBytes_Check(args[3]) || PyBytes_GET_SIZE(args[3]) != DIGEST) {
        PyErr_SetString(PyExc_TypeError, "follow takes a list of bytes, two numbers and 32 bytes");
        return NULL;
    }
    size_t due = PyLong_AsSize_t(args[1]), most = PyLong_AsSize_t(args[2]), size = 0, room = 1;
    if (PyErr_Occurred())
        return NULL;
    Py_ssize_t frames = 0, all = PyList_GET_SIZE(args[0]);
    uint8_t rolling[DIGEST], next[DIGEST];
    memcpy(rolling, PyBytes_AS_STRING(args[3]), DIGEST);
    for (Py_ssize_t i = 0; i < all; i++)
        room += PyBytes_Check(PyList_GET_ITEM(args[0], i)) ? (size_t)PyBytes_GET_SIZE(PyList_GET_ITEM(args[0], i)) : 0;
    uint8_t *text = PyMem_Malloc(room);
    PyObject *ids = PyList_New(0);
    if (text == NULL || ids == NULL) {
        PyMem_Free(text);
        Py_XDECREF(ids);
        return PyErr_NoMemory();
    }
    for (; frames < all; frames++) {
        Tokens tokens;
        uint32_t id;
        if (!read_tokens(PyList_GET_ITEM(args[0], frames), &tokens) || tokens.first != due ||
            tokens.count > (due < most ? most - due : 0) || !is_text(tokens.text, tokens.size))
            break;
        memcpy(next, rolling, DIGEST);
        Reader reader = tokens.ids;
        for (size_t i = 0; i < tokens.count && take_number(&reader, &id); i++)
            step(next, id);
        if (memcmp(next, tokens.rolling, DIGEST))
            break;
        reader = tokens.ids;
        for (size_t i = 0; i < tokens.count && take_number(&reader, &id); i++) {
            PyObject *number = PyLong_FromUnsignedLong(id);
            int failed = number == NULL || PyList_Append(ids, number) < 0;
            Py_XDECREF(number);
            if (failed) {
                PyMem_Free(text);
                Py_DECREF(ids);
                return NULL;
            }
        }
        memcpy(rolling, next, DIGEST);
        memcpy(text + size, tokens.text, tokens.size);
        size += tokens.size;
        due += tokens.count;
    }
    PyObject *words = PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)size, NULL);
    PyMem_Free(text);
    return words == NULL ? (Py_DECREF(ids), NULL)
                         : Py_BuildValue("NNy#n", ids, words, rolling, (Py_ssize_t)DIGEST, frames);
}

static PyMethodDef methods[] = {
    {"sha256", native_sha256, METH_O, "The digest of some bytes."},
    {"roll", (PyCFunction)(void (*)(void))native_roll, METH_FASTCALL, "transcript.roll, for ids in a list or tuple."},
    {"run", (PyCFunction)(void (*)(void))native_run, METH_FASTCALL,
     "How many payloads from a place on are messages of tokens of the plainest kind, at most so many."},
    {"follow", (PyCFunction)(void (*)(void))native_follow, METH_FASTCALL,
     "What is right of such messages, where `due` is the next index and `most` the number of tokens asked for: ids,\n"
     "text, the rolling hash after them, and how many messages that are."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    compress = best();
    return PyModule_Create(&definition);
}
