//! Against open_clip's own output: see `tests/fixtures/parity/make.py`.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use super::{UNLIMITED, spec};
use crate::clip::image::ImagePreprocessor;
use crate::clip::spec::{ImageSpec, Interpolation, ResizeMode};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity");

/// Every picture of the fixtures, by name.
pub(super) fn pictures() -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(Path::new(FIXTURES).join("pictures")).unwrap();
    let mut pictures: Vec<(String, Vec<u8>)> = files
        .map(|file| file.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
    pictures.sort();
    pictures
}

/// What `make.py` calls a case.
fn case(name: &str) -> ImageSpec {
    let portrait = ImageSpec {
        height: 80,
        width: 48,
        interpolation: Interpolation::Bilinear,
        resize_mode: ResizeMode::Shortest,
    };
    match name {
        "square" => spec(Interpolation::Bicubic, ResizeMode::Shortest),
        "bilinear" => spec(Interpolation::Bilinear, ResizeMode::Shortest),
        "portrait" => portrait,
        "longest" => spec(Interpolation::Bicubic, ResizeMode::Longest),
        "squash" => spec(Interpolation::Bicubic, ResizeMode::Squash),
        other => panic!("no case is called {other}"),
    }
}

/// One picture through one case, beside what open_clip made of it.
struct Comparison {
    case: String,
    picture: String,
    ours: Vec<u8>,
    reference: Vec<u8>,
}

fn comparisons() -> Vec<Comparison> {
    let file = fs::read(Path::new(FIXTURES).join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(expected.len(), 65, "cases");
    expected.iter().map(|(name, tensor)| compare(name, tensor.shape(), tensor.data())).collect()
}

fn compare(name: &str, shape: &[usize], reference: &[u8]) -> Comparison {
    let (case_name, picture) = name.split_once('/').unwrap();
    let spec = case(case_name);
    assert_eq!(shape, [spec.height as usize, spec.width as usize, 3]);
    let bytes = fs::read(Path::new(FIXTURES).join("pictures").join(picture)).unwrap();
    let row = ImagePreprocessor::new(spec, UNLIMITED).encoded(&bytes);
    let row = row.unwrap_or_else(|error| panic!("{picture}: {error}"));
    assert_eq!(row.0.len(), reference.len(), "{name}");
    let (case, picture) = (case_name.to_owned(), picture.to_owned());
    Comparison { case, picture, ours: row.0.to_vec(), reference: reference.to_vec() }
}

impl Comparison {
    fn differences(&self) -> impl Iterator<Item = u8> {
        self.ours.iter().zip(&self.reference).map(|(a, b)| a.abs_diff(*b))
    }

    fn max(&self) -> u8 {
        self.differences().max().unwrap()
    }

    /// Of the inputs as the encoder sees them, normalised as OpenAI's models are.
    fn cosine(&self) -> f64 {
        const MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
        const STD: [f64; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
        let normalise =
            |(place, value): (usize, &u8)| (f64::from(*value) / 255.0 - MEAN[place % 3]) / STD[place % 3];
        let (mut dot, mut ours, mut reference) = (0.0, 0.0, 0.0);
        for (a, b) in self.ours.iter().enumerate().zip(self.reference.iter().enumerate()) {
            let (a, b) = (normalise(a), normalise(b));
            (dot, ours, reference) = (dot + a * b, ours + a * a, reference + b * b);
        }
        dot / (ours * reference).sqrt()
    }
}

#[test]
fn rows_are_open_clips() {
    let different = comparisons().into_iter().filter(|comparison| comparison.max() > 0);
    let failures: Vec<String> =
        different.map(|each| format!("{}/{}: max {}", each.case, each.picture, each.max())).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Rows of the table in tests/bench/README.md, with the pictures that belong to each.
const TABLE: [(&str, &[&str]); 15] = [
    ("JPEG 4:4:4, EXIF orientation", &["444-exif.jpg"]),
    ("JPEG 4:2:0 and 4:2:2, restart markers", &["420.jpg", "422-restart.jpg", "large.jpg"]),
    ("JPEG progressive", &["progressive.jpg"]),
    ("JPEG grey", &["grey.jpg"]),
    ("JPEG CMYK and YCCK", &["cmyk.jpg", "ycck.jpg"]),
    ("PNG RGB, 8 and 16 bits, interlaced", &["rgb.png", "rgb16.png", "interlaced.png", "rgb-trns.png"]),
    ("PNG RGBA, grey with alpha", &["alpha.png", "alpha-exact.png", "grey-alpha.png"]),
    (
        "PNG grey, 1 to 16 bits",
        &["grey1.png", "grey2.png", "grey4.png", "grey8.png", "grey16.png", "grey-trns.png"],
    ),
    ("PNG palette", &["palette.png", "palette4.png", "palette-border.png", "palette-trns.png"]),
    (
        "PNG 1 x 1, 3 x 500, 640 x 24, sides that round",
        &[
            "one.png",
            "tall.png",
            "wide.png",
            "small.png",
            "exact.png",
            "cut.png",
            "round-down.png",
            "round-up.png",
        ],
    ),
    ("WebP lossless, alpha, animated", &["lossless.webp", "lossless-alpha.webp", "animated.webp"]),
    ("WebP lossy, alpha", &["lossy.webp", "lossy-alpha.webp"]),
    (
        "GIF palette, grey, transparent, interlaced, animated, offset",
        &["palette.gif", "grey.gif", "transparent.gif", "interlaced.gif", "animated.gif", "offset.gif"],
    ),
    (
        "BMP 24 and 32 bits, palette, grey, 1 bit, top-down",
        &["rgb.bmp", "rgbx.bmp", "palette.bmp", "grey.bmp", "black-white.bmp", "top-down.bmp"],
    ),
    (
        "TIFF RGB, RGBA, grey 8 and 16 bits, 1 bit, CMYK, pages",
        &[
            "rgb.tif",
            "lzw.tif",
            "alpha.tif",
            "grey.tif",
            "grey16.tif",
            "black-white.tif",
            "cmyk.tif",
            "pages.tif",
        ],
    ),
];

#[test]
fn the_readme_has_the_table_of_what_is_measured_here() {
    let comparisons = comparisons();
    let mut table = String::new();
    let mut listed = 0;
    for (row, pictures) in TABLE {
        let of_row: Vec<&Comparison> =
            comparisons.iter().filter(|each| pictures.contains(&each.picture.as_str())).collect();
        listed += of_row.len();
        let cosines: Vec<f64> = of_row.iter().map(|each| each.cosine()).collect();
        let min = cosines.iter().copied().fold(1.0, f64::min);
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let max = of_row.iter().map(|each| each.max()).max().unwrap();
        assert!(min >= 0.9995, "{row}: {min}");
        table += &format!("| {row} | {} | {mean:.6} | {min:.6} | {max} |\n", of_row.len());
    }
    assert_eq!(listed, comparisons.len(), "every fixture is in one row");
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/README.md")).unwrap();
    assert!(readme.contains(&table), "tests/bench/README.md should have\n{table}");
}
