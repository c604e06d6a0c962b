//! What the passes are made of, for each kind of processor: turning rows into columns, and the weighted sum.

use super::windows::{FRACTION_BITS, Pair};

/// Samples that are worked on together.
pub(super) type Samples = [u8; LANES];
pub(super) const LANES: usize = 32;

/// Rows whose pixels stand side by side in the lanes, with four samples each, whether they are used or not.
pub(super) const ROWS: usize = LANES / 4;

const ONE_HALF: i32 = 1 << (FRACTION_BITS - 1);

pub(super) trait Kernel: Copy {
    /// The pixels of [`ROWS`] rows of `C` samples per pixel, column by column. The rows are equally long.
    fn turn<const C: usize>(self, rows: [&[u8]; ROWS], columns: &mut [Samples]);

    /// The inverse, for a number of columns that four divides. Rows have room for sixteen bytes more, with which it
    /// does as it likes.
    fn turn_back<const C: usize>(self, columns: &[Samples], rows: &mut [&mut [u8]; ROWS]);

    /// The weighted sums of `samples`, lane by lane, rounded and clipped to 8 bits.
    fn weigh(self, weights: &[Pair], samples: impl Iterator<Item = [Samples; 2]>) -> Samples;
}

/// Any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Kernel for Portable {
    #[inline(always)]
    fn turn<const C: usize>(self, rows: [&[u8]; ROWS], columns: &mut [Samples]) {
        for (place, row) in rows.into_iter().enumerate() {
            for (column, pixel) in columns.iter_mut().zip(row.as_chunks::<C>().0) {
                column[4 * place..][..C].copy_from_slice(pixel);
            }
        }
    }

    #[inline(always)]
    fn turn_back<const C: usize>(self, columns: &[Samples], rows: &mut [&mut [u8]; ROWS]) {
        for (place, row) in rows.iter_mut().enumerate() {
            for (pixel, column) in row.as_chunks_mut::<C>().0.iter_mut().zip(columns) {
                pixel.copy_from_slice(&column[4 * place..][..C]);
            }
        }
    }

    #[inline(always)]
    fn weigh(self, weights: &[Pair], samples: impl Iterator<Item = [Samples; 2]>) -> Samples {
        let mut sums = [ONE_HALF; LANES];
        for (pair, [first, second]) in weights.iter().zip(samples) {
            let [first_weight, second_weight] = pair.weights();
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum += i32::from(first[lane]) * first_weight + i32::from(second[lane]) * second_weight;
            }
        }
        sums.map(|sum| (sum >> FRACTION_BITS).clamp(0, 255) as u8)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{__m128i, __m256i};

    use pulp::cast;
    use pulp::x86::V3;

    use super::{FRACTION_BITS, Kernel, ONE_HALF, Pair, Portable, ROWS, Samples};

    /// Processors with AVX2, which multiplies sixteen pairs of 16 bits at a time and adds the products of neighbours.
    #[derive(Clone, Copy)]
    pub(in crate::clip::image::resample) struct Avx2(pub(in crate::clip::image::resample) V3);

    impl Kernel for Avx2 {
        /// Four columns at a time: a half of a vector has four pixels of one row, widened to four samples.
        #[inline(always)]
        fn turn<const C: usize>(self, rows: [&[u8]; ROWS], columns: &mut [Samples]) {
            let V3 { avx, avx2, .. } = self.0;
            let widened: __m256i = cast([const { places::<C, 4>() }; 2]);
            // Where sixteen bytes can be read; they may be of more than four pixels.
            let turned = (rows[0].len().saturating_sub(16 - 4 * C) / (4 * C)).min(columns.len() / 4);
            for (place, columns) in columns.as_chunks_mut::<4>().0[..turned].iter_mut().enumerate() {
                let pixels = |row: usize| -> __m128i {
                    let mut pixels = [0; 16];
                    pixels.copy_from_slice(&rows[row][place * 4 * C..][..16]);
                    cast(pixels)
                };
                let mut quads = [widened; ROWS / 2];
                for (row, quad) in quads.iter_mut().enumerate() {
                    let rows = avx._mm256_set_m128i(pixels(row + ROWS / 2), pixels(row));
                    *quad = avx2._mm256_shuffle_epi8(rows, widened);
                }
                *columns = cast(self.transposed(quads));
            }
            let rest = rows.map(|row| &row[turned * 4 * C..]);
            Portable.turn::<C>(rest, &mut columns[turned * 4..]);
        }

        /// The same way back.
        #[inline(always)]
        fn turn_back<const C: usize>(self, columns: &[Samples], rows: &mut [&mut [u8]; ROWS]) {
            let avx2 = self.0.avx2;
            let narrowed: __m256i = cast([const { places::<4, C>() }; 2]);
            for (place, columns) in columns.as_chunks::<4>().0.iter().enumerate() {
                let quads = self.transposed(cast(*columns));
                for (row, quad) in quads.into_iter().enumerate() {
                    let pixels: [[u8; 16]; 2] = cast(avx2._mm256_shuffle_epi8(quad, narrowed));
                    for (half, pixels) in pixels.iter().enumerate() {
                        rows[row + half * ROWS / 2][place * 4 * C..][..16].copy_from_slice(pixels);
                    }
                }
            }
        }

        /// High parts of weights are multiplied with samples of 8 bits, low parts with samples widened to 16. The
        /// sums of both may wrap around: what they lose is beyond the 32 bits of the result. That of two high
        /// products, which would stop at 16 bits, is less than 80 x 255.
        #[inline(always)]
        fn weigh(self, weights: &[Pair], samples: impl Iterator<Item = [Samples; 2]>) -> Samples {
            let V3 { avx, avx2, .. } = self.0;
            let zero = avx._mm256_setzero_si256();
            let mut low = [avx._mm256_set1_epi32(ONE_HALF); 4];
            let mut high = [zero; 2];
            for (pair, samples) in weights.iter().zip(samples) {
                let low_weights = avx._mm256_set1_epi32(cast(pair.low));
                let high_weights = avx._mm256_set1_epi16(cast(pair.high));
                let [first, second]: [__m256i; 2] = samples.map(cast);
                // Each sample beside its partner.
                let halves =
                    [avx2._mm256_unpacklo_epi8(first, second), avx2._mm256_unpackhi_epi8(first, second)];
                for (half, samples) in halves.into_iter().enumerate() {
                    let products = avx2._mm256_maddubs_epi16(samples, high_weights);
                    high[half] = avx2._mm256_add_epi16(high[half], products);
                    let front = avx2._mm256_unpacklo_epi8(samples, zero);
                    let products = avx2._mm256_madd_epi16(front, low_weights);
                    low[2 * half] = avx2._mm256_add_epi32(low[2 * half], products);
                    let back = avx2._mm256_unpackhi_epi8(samples, zero);
                    let products = avx2._mm256_madd_epi16(back, low_weights);
                    low[2 * half + 1] = avx2._mm256_add_epi32(low[2 * half + 1], products);
                }
            }
            let rounded = |low: __m256i, high: __m256i| {
                avx2._mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(avx2._mm256_add_epi32(low, high))
            };
            // Packing clips, and undoes the order of unpacking.
            let half = |front: __m256i, back: __m256i, high: __m256i| {
                let front = rounded(front, avx2._mm256_unpacklo_epi16(zero, high));
                avx2._mm256_packs_epi32(front, rounded(back, avx2._mm256_unpackhi_epi16(zero, high)))
            };
            let halves = [half(low[0], low[1], high[0]), half(low[2], low[3], high[1])];
            cast(avx2._mm256_packus_epi16(halves[0], halves[1]))
        }
    }

    impl Avx2 {
        /// Four numbers of 32 bits each per half: rows and columns change places.
        #[inline(always)]
        fn transposed(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
            let avx2 = self.0.avx2;
            let front = [avx2._mm256_unpacklo_epi32(a, b), avx2._mm256_unpacklo_epi32(c, d)];
            let back = [avx2._mm256_unpackhi_epi32(a, b), avx2._mm256_unpackhi_epi32(c, d)];
            [
                avx2._mm256_unpacklo_epi64(front[0], front[1]),
                avx2._mm256_unpackhi_epi64(front[0], front[1]),
                avx2._mm256_unpacklo_epi64(back[0], back[1]),
                avx2._mm256_unpackhi_epi64(back[0], back[1]),
            ]
        }
    }

    /// Where the samples of four pixels are found that had `FROM` each and shall have `TO`; those they never had are
    /// zero.
    const fn places<const FROM: usize, const TO: usize>() -> [u8; 16] {
        const NOWHERE: u8 = 0x80;
        let mut places = [NOWHERE; 16];
        let mut sample = 0;
        while sample < 4 * TO {
            if sample % TO < FROM {
                places[sample] = (sample / TO * FROM + sample % TO) as u8;
            }
            sample += 1;
        }
        places
    }
}
