//! What one core does to make a picture the input of a model of 224 x 224: CPU time, so that other work hardly shows.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use clipd::clip::image::{ImageLimits, ImagePreprocessor};
use clipd::clip::spec::{ImageSpec, Interpolation, ResizeMode};
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress, decompress};
use rustix::time::{ClockId, clock_gettime};

use crate::bench::{millis, percentile};

/// 500 x 375, of 47 kB.
const PHOTO: &[u8] = include_bytes!("../../src/bench/pictures/0.jpg");

/// Photos in a row and in a column of the large picture: 4000 x 3000.
const MOSAIC: usize = 8;

pub(crate) fn pictures() {
    println!("| picture | JPEG to input, ms | decoding alone | resizing alone |");
    println!("|---|---|---|---|");
    steps("500 x 375", PHOTO);
    let mosaic = mosaic();
    // For tests/bench/libjpeg_turbo.py, which decodes the same file.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mosaic.jpg");
    std::fs::write(path, &mosaic).expect("cargo made the folder");
    steps("4000 x 3000", &mosaic);
}

fn steps(name: &str, jpeg: &[u8]) {
    let spec = ImageSpec {
        height: 224,
        width: 224,
        interpolation: Interpolation::Bicubic,
        resize_mode: ResizeMode::Shortest,
    };
    let limits = ImageLimits { max_bytes: usize::MAX, max_pixels: u64::MAX };
    let preprocessor = ImagePreprocessor::new(spec, limits);
    let decode = || decompress(jpeg).expect("it is a picture");
    let picture = decode();
    let (width, height) = (picture.width as u32, picture.height as u32);
    let pixels = bytes::Bytes::copy_from_slice(picture.as_bytes());
    let mut arms: [(Vec<Duration>, &dyn Fn()); 3] = [
        (Vec::new(), &|| drop(black_box(preprocessor.encoded(jpeg)))),
        (Vec::new(), &|| drop(black_box(decode()))),
        (Vec::new(), &|| drop(black_box(preprocessor.rgb(width, height, &pixels)))),
    ];
    const SPAN: Duration = Duration::from_secs(3);
    let start = cpu_time();
    while cpu_time() - start < SPAN {
        for (times, run) in &mut arms {
            let start = cpu_time();
            run();
            times.push(cpu_time() - start);
        }
    }
    let [all, decoding, resizing] = arms.map(|(mut times, _)| millis(percentile(&mut times, 0.5)));
    println!("| {name} | {all:.3} | {decoding:.3} | {resizing:.3} |");
}

/// The photo many times over: as many bytes per pixel as it has.
fn mosaic() -> Vec<u8> {
    let photo = decompress(PHOTO).expect("it is a picture");
    let rows = photo.as_bytes().chunks_exact(photo.width * 3).map(|row| row.repeat(MOSAIC));
    let pixels = rows.collect::<Vec<_>>().concat().repeat(MOSAIC);
    let (width, height) = (photo.width * MOSAIC, photo.height * MOSAIC);
    compress(&pixels, width, height, PixelFormat::Rgb, 85, Subsampling::S420).expect("the length is right")
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a thread's time is not negative")
}
