//! SHA-256 of several messages of as many blocks, four rounds of each in turn.
//!
//! A round waits for the one before it, so one message alone leaves the processor's unit for SHA-256 idle part of the time.
//! The rounds of different messages do not depend on each other. `sha2`, which hashes single messages, has no
//! such function; nor has another library that is kept well and begins with the state of a key.

/// Ours: messages whose rounds are done in turn.
pub(crate) const LANES: usize = 4;
/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;
/// What a hash has come to after some blocks.
pub(crate) type State = [u32; 8];

/// What the hash of every message begins with (FIPS 180-4 section 5.3.3).
pub(crate) const BEGIN: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[cfg(target_arch = "x86_64")]
pub(crate) use rounds::compress;

#[cfg(target_arch = "x86_64")]
mod rounds {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::{BLOCK, LANES, State};

    /// The constants of four rounds each (FIPS 180-4 section 4.2.2).
    const CONSTANTS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// The words A, B, E, F and C, D, G, H, as the instructions take them.
    type Halves = [__m128i; 2];

    /// Take in as many blocks of each message as there are of the first.
    #[target_feature(enable = "sha,sse4.1")]
    pub(crate) fn compress(states: &mut [State; LANES], blocks: [&[[u8; BLOCK]]; LANES]) {
        let mut lanes = [[_mm_setzero_si128(); 2]; LANES];
        for ([abef, cdgh], state) in lanes.iter_mut().zip(&*states) {
            let word = |at: usize| state[at].cast_signed();
            *abef = _mm_set_epi32(word(0), word(1), word(4), word(5));
            *cdgh = _mm_set_epi32(word(2), word(3), word(6), word(7));
        }
        for at in 0..blocks[0].len() {
            let before = lanes;
            let mut words = [[_mm_setzero_si128(); 4]; LANES];
            for (words, blocks) in words.iter_mut().zip(blocks) {
                *words = load(&blocks[at]);
            }
            // Written out: in a loop, what is known of each step would be found out at run time.
            macro_rules! in_turn {
                ($($step:literal)*) => {$(
                    for (halves, words) in lanes.iter_mut().zip(&mut words) {
                        four_rounds(halves, words, $step);
                    }
                )*};
            }
            in_turn!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for (halves, before) in lanes.iter_mut().zip(before) {
                *halves = [_mm_add_epi32(halves[0], before[0]), _mm_add_epi32(halves[1], before[1])];
            }
        }
        for (state, [abef, cdgh]) in states.iter_mut().zip(lanes) {
            let words = [
                _mm_extract_epi32::<3>(abef),
                _mm_extract_epi32::<2>(abef),
                _mm_extract_epi32::<3>(cdgh),
                _mm_extract_epi32::<2>(cdgh),
                _mm_extract_epi32::<1>(abef),
                _mm_extract_epi32::<0>(abef),
                _mm_extract_epi32::<1>(cdgh),
                _mm_extract_epi32::<0>(cdgh),
            ];
            *state = words.map(i32::cast_unsigned);
        }
    }

    /// The words of a block, whose bytes stand the other way round.
    #[inline]
    #[target_feature(enable = "sha,sse4.1")]
    fn load(block: &[u8; BLOCK]) -> [__m128i; 4] {
        let turned = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
        let (halves, _) = block.as_chunks::<8>();
        let mut words = [_mm_setzero_si128(); 4];
        for (words, halves) in words.iter_mut().zip(halves.as_chunks::<2>().0) {
            let [low, high] = halves.map(i64::from_le_bytes);
            *words = _mm_shuffle_epi8(_mm_set_epi64x(high, low), turned);
        }
        words
    }

    /// Four rounds, the first of which is number 4 * `step`, on the words that they need: those of the block, then what
    /// is made of the last sixteen.
    #[inline]
    #[target_feature(enable = "sha,sse4.1")]
    fn four_rounds(halves: &mut Halves, words: &mut [__m128i; 4], step: usize) {
        if step >= 4 {
            let [first, second, third, fourth] =
                [words[step % 4], words[(step + 1) % 4], words[(step + 2) % 4], words[(step + 3) % 4]];
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(first, second), _mm_alignr_epi8::<4>(fourth, third));
            words[step % 4] = _mm_sha256msg2_epu32(sum, fourth);
        }
        let [first, second, third, fourth] = CONSTANTS[step].map(u32::cast_signed);
        let added = _mm_add_epi32(words[step % 4], _mm_set_epi32(fourth, third, second, first));
        let [abef, cdgh] = *halves;
        let after_two = _mm_sha256rnds2_epu32(cdgh, abef, added);
        let after_four = _mm_sha256rnds2_epu32(abef, after_two, _mm_shuffle_epi32::<0x0E>(added));
        *halves = [after_four, after_two];
    }
}
