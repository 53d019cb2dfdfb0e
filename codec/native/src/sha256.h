// SHA-256 (FIPS 180-4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pocketlic {

inline constexpr uint32_t kSha256Constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// Takes blocks of 64 bytes into the state, by the processor's own instructions if it has them.
void sha256_blocks(uint32_t (&state)[8], const uint8_t* data, size_t blocks);

class Sha256 {
public:
    void update(const uint8_t* data, size_t size) {
        length_ += size;
        while (size > 0) {
            if (filled_ == 0 && size >= sizeof block_) {
                const size_t whole = size / sizeof block_;
                sha256_blocks(state_, data, whole);
                data += whole * sizeof block_;
                size -= whole * sizeof block_;
                continue;
            }
            const size_t n = size < sizeof block_ - filled_ ? size : sizeof block_ - filled_;
            std::memcpy(block_ + filled_, data, n);
            filled_ += n;
            data += n;
            size -= n;
            if (filled_ == sizeof block_) {
                sha256_blocks(state_, block_, 1);
                filled_ = 0;
            }
        }
    }

    void finish(uint8_t (&digest)[32]) {
        const uint64_t bits = length_ * 8;
        const uint8_t one = 0x80, zero = 0;
        update(&one, 1);
        while (filled_ != 56) update(&zero, 1);
        uint8_t tail[8];
        for (int i = 0; i < 8; ++i) tail[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
        update(tail, 8);
        for (size_t i = 0; i < 32; ++i) digest[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
    }

private:
    uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint64_t length_ = 0;
    uint8_t block_[64];
    size_t filled_ = 0;
};

}  // namespace pocketlic
