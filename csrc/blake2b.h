// BLAKE2b (RFC 7693) as far as streams of names need it: 64 bits of digest, 16 bytes of personalisation, no key. The definition
// is Python's hashlib (weightinit_cuda/numerics/streams.py); this one is for thousands of names at once.
#pragma once
#include <cstdint>
#include <cstring>

namespace wi {

class Blake2b64 {
  public:
    // `person`: 16 bytes.
    static uint64_t digest(const char* text, uint64_t size, const char* person) {
        uint64_t h[8];
        memcpy(h, kInitial, sizeof h);
        h[0] ^= 0x01010000 ^ kDigestBytes;
        uint64_t words[2];
        memcpy(words, person, sizeof words);
        h[6] ^= words[0];
        h[7] ^= words[1];
        uint64_t done = 0;
        for (; size - done > kBlock; done += kBlock) compress(h, text + done, done + kBlock, false);
        char last[kBlock] = {};
        memcpy(last, text + done, size - done);
        compress(h, last, size, true);
        return h[0];
    }

  private:
    static constexpr uint64_t kDigestBytes = 8, kBlock = 128;
    static constexpr uint64_t kInitial[8] = {  // of SHA-512
        0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
        0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
    static constexpr uint8_t kOrder[10][16] = {  // of a block's words, in each round; rounds 10 and 11 are 0 and 1 again
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

    static uint64_t rotated(uint64_t x, int n) { return x >> n | x << (64 - n); }

    static void mix(uint64_t& a, uint64_t& b, uint64_t& c, uint64_t& d, uint64_t x, uint64_t y) {
        a += b + x;
        d = rotated(d ^ a, 32);
        c += d;
        b = rotated(b ^ c, 24);
        a += b + y;
        d = rotated(d ^ a, 16);
        c += d;
        b = rotated(b ^ c, 63);
    }

    // `bytes`: of the whole text, up to the end of this block.
    static void compress(uint64_t h[8], const char* block, uint64_t bytes, bool last) {
        uint64_t m[16], v[16];
        memcpy(m, block, sizeof m);  // little endian, as all machines that this library is built for
        memcpy(v, h, 8 * sizeof *h);
        memcpy(v + 8, kInitial, sizeof kInitial);
        v[12] ^= bytes;
        if (last) v[14] = ~v[14];
        for (int round = 0; round < 12; ++round) {
            const uint8_t* const s = kOrder[round % 10];
            for (int i = 0; i < 4; ++i) mix(v[i], v[4 + i], v[8 + i], v[12 + i], m[s[2 * i]], m[s[2 * i + 1]]);
            for (int i = 0; i < 4; ++i)
                mix(v[i], v[4 + (i + 1) % 4], v[8 + (i + 2) % 4], v[12 + (i + 3) % 4], m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
        }
        for (int i = 0; i < 8; ++i) h[i] ^= v[i] ^ v[8 + i];
    }
};

}  // namespace wi
