//! Compiles the protocol and places ONNX Runtime.
//!
//! The protocol needs no protoc: protox compiles it. ONNX Runtime comes as the official Python wheel of a
//! pinned version and hash, unpacked once under the target directory; later builds fetch nothing.

#![expect(clippy::disallowed_methods, reason = "Cargo speaks to a build script through the environment")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

const PROTO: &str = "clip/v1/clip.proto";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Returned from main it would be printed as one line with escapes.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    compile_protocol()?;
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ORT_DYLIB_PATH");
    if env::var_os("CARGO_FEATURE_FETCH_ONNXRUNTIME").is_some() && env::var_os("ORT_DYLIB_PATH").is_none() {
        let library = place_onnxruntime()?;
        println!("cargo:rustc-env=CLIPD_ONNXRUNTIME_LIB={}", library.display());
        println!("cargo:rerun-if-changed={}", library.display());
    }
    Ok(())
}

/// proto -> message types, service, and the descriptor set that reflection serves.
fn compile_protocol() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/clip");
    let mut descriptors = protox::compile([PROTO], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    labels_as_bytes(&mut descriptors);
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::grpc::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Gives labels the Rust type `Bytes`. There may be 20,000 in a request, and most requests repeat a set that the
/// server knows: as bytes they stay slices of the message, where each string would be allocated and checked.
/// Strings and bytes are the same on the wire; that a new label is UTF-8, the pipeline checks.
fn labels_as_bytes(descriptors: &mut FileDescriptorSet) {
    let messages = descriptors.file.iter_mut().flat_map(|file| &mut file.message_type);
    for field in messages.flat_map(|message| &mut message.field).filter(|field| field.name() == "labels") {
        if field.r#type() == Type::String {
            field.set_type(Type::Bytes);
        }
    }
}

/// One wheel of the Python package index that carries ONNX Runtime's shared library.
struct Wheel {
    requirement: &'static str,
    platform: &'static str,
    sha256: &'static str,
    library: &'static str,
}

/// ONNX Runtime 1.24.1 for the target of this build.
/// Linux x86-64 gets the OpenVINO build, which has the plain CPU provider too.
fn wheel() -> Option<Wheel> {
    let os = env::var("CARGO_CFG_TARGET_OS").ok()?;
    let arch = env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    match (os.as_str(), arch.as_str()) {
        ("linux", "x86_64") => Some(Wheel {
            requirement: "onnxruntime-openvino==1.24.1",
            platform: "manylinux_2_28_x86_64",
            sha256: "3007c803634cc69c6d52af1dea7ce729d9bb62b9a11070fd2f959119199007a8",
            library: "libonnxruntime.so.1.24.1",
        }),
        ("linux", "aarch64") => Some(Wheel {
            requirement: "onnxruntime==1.24.1",
            platform: "manylinux_2_28_aarch64",
            sha256: "86bc43e922b1f581b3de26a3dc402149c70e5542fceb5bec6b3a85542dbeb164",
            library: "libonnxruntime.so.1.24.1",
        }),
        ("macos", "aarch64") => Some(Wheel {
            requirement: "onnxruntime==1.24.1",
            platform: "macosx_14_0_arm64",
            sha256: "79b3119ab9f4f3817062e6dbe7f4a44937de93905e3a31ba34313d18cb49e7be",
            library: "libonnxruntime.1.24.1.dylib",
        }),
        _ => None,
    }
}

/// Path of the shared library, fetched if it is not there yet.
fn place_onnxruntime() -> Result<PathBuf, Box<dyn Error>> {
    let wheel = wheel().ok_or_else(|| help("there is no wheel of ONNX Runtime for this target"))?;
    let target = target_dir()?;
    let home = target.join(wheel.requirement.replace("==", "-"));
    let library = home.join("onnxruntime/capi").join(wheel.library);
    if !library.exists() {
        // Unpacked aside and renamed, so that an interrupted build leaves nothing half-done.
        let aside = target.join(format!("onnxruntime-fetch-{}", std::process::id()));
        fs::create_dir_all(&aside)?;
        let fetched = fetch(&wheel, &aside);
        if fetched.is_ok() && !library.exists() {
            fs::rename(aside.join("unpacked"), &home)?;
        }
        fs::remove_dir_all(&aside)?;
        fetched?;
    }
    if !library.exists() {
        return Err(help(&format!("{} has no {}", wheel.requirement, wheel.library)).into());
    }
    Ok(library)
}

/// Downloads the wheel with pip, which checks the hash, and unpacks it to `aside/unpacked`.
fn fetch(wheel: &Wheel, aside: &Path) -> Result<(), Box<dyn Error>> {
    let requirements = aside.join("requirements.txt");
    fs::write(&requirements, format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256))?;
    python(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--python-version", "3.11", "--platform", wheel.platform])
            .arg("--dest")
            .arg(aside)
            .arg("--requirement")
            .arg(&requirements),
    )?;
    let file = fs::read_dir(aside)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| help("pip downloaded no wheel"))?;
    python(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(file).arg(aside.join("unpacked")))
}

fn python(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output =
        command.output().map_err(|error| help(&format!("python3 could not be started ({error})")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(help(&format!("python3 could not fetch it:\n{}", stderr.trim_end())).into());
    }
    Ok(())
}

/// OUT_DIR is `<target>/<profile>/build/<crate>/out`.
fn target_dir() -> Result<PathBuf, Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not inside a target directory")?;
    Ok(target.to_path_buf())
}

fn help(problem: &str) -> String {
    format!(
        "clipd needs ONNX Runtime's shared library, and {problem}\n\n\
         Either install python3 with pip (Debian: apt-get install python3-pip) and build again,\n\
         or set ORT_DYLIB_PATH to a libonnxruntime.so of version 1.24 or newer when building and when running."
    )
}
