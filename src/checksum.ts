// CRC-32 (IEEE 802.3, as in zip): of the entries of .pth files, saved states, fingerprints and training data.

export { crc32 } from "#platform/checksum";
