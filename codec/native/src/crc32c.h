// CRC-32C (Castagnoli; reflected polynomial 0x82F63B78), as in iSCSI (RFC 3720) and ext4.
// Slice-by-8: eight tables, eight bytes a step. crc32c("123456789") = 0xE3069283.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pocketlic {

using Crc32cTables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Crc32cTables make_crc32c_tables() {
    Crc32cTables t{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0u);
        t[0][i] = crc;
    }
    for (size_t k = 1; k < 8; ++k)
        for (size_t i = 0; i < 256; ++i) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 0xFF];
    return t;
}

inline uint32_t crc32c(const uint8_t* data, size_t size) {
    static constexpr Crc32cTables t = make_crc32c_tables();
    uint32_t crc = 0xFFFFFFFFu;
    for (; size >= 8; data += 8, size -= 8) {
        crc = t[7][(data[0] ^ crc) & 0xFF] ^ t[6][(data[1] ^ (crc >> 8)) & 0xFF] ^
              t[5][(data[2] ^ (crc >> 16)) & 0xFF] ^ t[4][data[3] ^ (crc >> 24)] ^
              t[3][data[4]] ^ t[2][data[5]] ^ t[1][data[6]] ^ t[0][data[7]];
    }
    for (; size > 0; ++data, --size) crc = (crc >> 8) ^ t[0][(crc ^ *data) & 0xFF];
    return ~crc;
}

}  // namespace pocketlic
