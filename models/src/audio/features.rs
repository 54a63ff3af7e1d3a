//! One spectrum to one row of features: mel bands, logarithm, optional DCT-II, mean and deviation.
//!
//! **Invariant:** the numbers are the bundle's: mel(f) = 1127 ln(1 + f / 700), triangles linear in
//! mel and not normalised by area, bin 0 with weight 0, ln(x + floor), DCT scaled sqrt(2 / bands).

use crate::bundle::{AudioFront, Features};

/// The weights of one band: those bins that are not zero.
struct Band {
    first: usize,
    weights: Vec<f32>,
}

/// The matrices of one bundle.
pub(super) struct MelPlan {
    bands: Vec<Band>,
    bins: usize,
    floor: f32,
    /// Row by row, `[coefficients, bands]`; empty for log-mel.
    dct: Vec<f32>,
    mean: Vec<f32>,
    scale: Vec<f32>,
    logs: Vec<f32>,
}

impl MelPlan {
    pub(super) fn new(front: &AudioFront) -> Self {
        let columns = front.columns();
        let spread = |values: &[f32]| -> Vec<f32> {
            (0..columns).map(|i| values[if values.len() == 1 { 0 } else { i }]).collect()
        };
        Self {
            bands: bands(front),
            bins: front.fft / 2 + 1,
            floor: front.log_floor,
            dct: match front.features {
                Features::LogMel => Vec::new(),
                Features::Mfcc(count) => dct(count, front.mel_bands),
            },
            mean: spread(&front.mean),
            scale: spread(&front.std).into_iter().map(|std| 1.0 / std).collect(),
            logs: Vec::with_capacity(front.mel_bands),
        }
    }

    /// Makes the row of features of one spectrum.
    pub(super) fn run(&mut self, bins: &[f32], row: &mut [f32]) {
        self.logs.clear();
        for band in &self.bands {
            let energy = dot(&bins[band.first..], &band.weights);
            self.logs.push((energy + self.floor).ln());
        }
        if self.dct.is_empty() {
            row.copy_from_slice(&self.logs);
        } else {
            for (x, weights) in row.iter_mut().zip(self.dct.chunks_exact(self.logs.len())) {
                *x = dot(&self.logs, weights);
            }
        }
        for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
            *x = (*x - mean) * scale;
        }
    }

    pub(super) fn matrix(&self) -> Vec<f32> {
        let count = self.bands.len();
        let mut matrix = vec![0.0; self.bins * count];
        for (b, band) in self.bands.iter().enumerate() {
            for (i, weight) in band.weights.iter().enumerate() {
                matrix[(band.first + i) * count + b] = *weight;
            }
        }
        matrix
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[allow(clippy::cast_possible_truncation, reason = "computed in f64, used as f32")]
fn bands(front: &AudioFront) -> Vec<Band> {
    let mel = |hz: f64| 1127.0 * (hz / 700.0).ln_1p();
    let (low, high) = (mel(front.mel_low_hz.into()), mel(front.mel_high_hz.into()));
    let step = (high - low) / (front.mel_bands + 1) as f64;
    let per_bin = f64::from(front.sample_rate_hz) / front.fft as f64;
    let centres: Vec<f64> = (0..=front.fft / 2).map(|k| mel(per_bin * k as f64)).collect();
    let band = |b: usize| {
        let lower = low + step * b as f64;
        let weight = |mel: f64| ((mel - lower) / step).min((lower + 2.0 * step - mel) / step);
        let weights: Vec<f64> = centres
            .iter()
            .enumerate()
            .map(|(k, &m)| if k == 0 { 0.0 } else { weight(m) })
            .collect();
        let first = weights.iter().position(|w| *w > 0.0).unwrap_or(0);
        let kept = weights[first..].iter().take_while(|w| **w > 0.0).map(|w| *w as f32);
        Band { first, weights: kept.collect() }
    };
    (0..front.mel_bands).map(band).collect()
}

/// c[k] = sqrt(2 / M) sum over m of L[m] cos(pi k (2m + 1) / 2M)
#[allow(clippy::cast_possible_truncation, reason = "computed in f64, used as f32")]
fn dct(count: usize, bands: usize) -> Vec<f32> {
    let scale = (2.0 / bands as f64).sqrt();
    let angle =
        |k: usize, m: usize| std::f64::consts::PI * (k * (2 * m + 1)) as f64 / (2 * bands) as f64;
    (0..count).flat_map(|k| (0..bands).map(move |m| (scale * angle(k, m).cos()) as f32)).collect()
}
