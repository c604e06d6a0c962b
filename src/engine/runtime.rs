//! Finds ONNX Runtime's shared library, loads it, and keeps the one environment a process may have.
//!
//! The library is looked for in `ORT_DYLIB_PATH`, beside the executable, and where the build placed it;
//! the first that is there is used. Its log goes to `tracing`, target `onnxruntime`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::logging::LogLevel;
use tracing::level_filters::LevelFilter;

use super::EngineError;

/// Names the library when it is at neither of the other places.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// Where `build.rs` placed it, if it did.
const BUILT_LIBRARY: Option<&str> = option_env!("CLIPD_ONNXRUNTIME_LIB");

/// The loaded library.
pub(super) struct Runtime {
    pub(super) environment: Environment,
    /// Such as `1.24.1`.
    pub(super) version: String,
}

/// Loads ONNX Runtime on the first call. A failure is final: ONNX Runtime cannot be loaded twice.
pub(super) fn runtime() -> Result<&'static Runtime, EngineError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    RUNTIME.get_or_init(load).as_ref().map_err(|message| EngineError::Library(message.clone()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the variable is ONNX Runtime's own and must work in tests too"
)]
fn load() -> Result<Runtime, String> {
    let executable =
        std::env::current_exe().map_err(|error| format!("cannot find the executable: {error}"))?;
    let library = locate(&Places {
        variable: std::env::var_os(LIBRARY_VARIABLE),
        beside: executable.parent().unwrap_or(Path::new("/")),
        built: BUILT_LIBRARY.map(Path::new),
    })?;
    let environment = ort::init_from(&library)
        .map_err(|error| format!("ONNX Runtime: {error}"))?
        .with_name(env!("CARGO_PKG_NAME"))
        .with_telemetry(false)
        .with_logger(Arc::new(|level, _category, _id, location, message| log(level, location, message)))
        .build()
        .map_err(|error| format!("ONNX Runtime at {}: {error}", library.display()))?;
    // ONNX Runtime formats a message before the logger sees it.
    environment.set_log_level(match LevelFilter::current() {
        LevelFilter::TRACE => LogLevel::Verbose,
        LevelFilter::DEBUG => LogLevel::Info,
        _ => LogLevel::Warning,
    });
    let version = version(ort::info(), &library);
    tracing::info!(library = %library.display(), version, "loaded ONNX Runtime");
    Ok(Runtime { environment, version })
}

/// Where the library may be.
struct Places<'a> {
    /// The value of [`LIBRARY_VARIABLE`]; nothing else counts when it is set.
    variable: Option<OsString>,
    /// The executable's directory.
    beside: &'a Path,
    built: Option<&'a Path>,
}

fn locate(places: &Places<'_>) -> Result<PathBuf, String> {
    if let Some(value) = places.variable.as_ref().filter(|value| !value.is_empty()) {
        let path = PathBuf::from(value);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("{LIBRARY_VARIABLE} is {}, which is not a file", path.display()))
        };
    }
    beside(places.beside).or_else(|| places.built.filter(|path| path.is_file()).map(Path::to_owned)).ok_or_else(|| {
        let built = places.built.map(|path| format!(" and not at {}", path.display())).unwrap_or_default();
        format!(
            "ONNX Runtime's shared library is not in {}{built}; install ONNX Runtime 1.24 or later and set \
             {LIBRARY_VARIABLE} to the file {}onnxruntime{} (the Python package onnxruntime has it in \
             onnxruntime/capi)",
            places.beside.display(),
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX,
        )
    })
}

/// `libonnxruntime.so`, or one with a version in its name: `libonnxruntime.so.1`, `libonnxruntime.1.24.1.dylib`.
fn beside(directory: &Path) -> Option<PathBuf> {
    let mut libraries: Vec<PathBuf> = std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_library))
        .collect();
    // The plain name sorts before the versioned ones.
    libraries.sort();
    libraries.into_iter().next()
}

fn is_library(name: &str) -> bool {
    name.strip_prefix(std::env::consts::DLL_PREFIX)
        .and_then(|name| name.strip_prefix("onnxruntime."))
        .is_some_and(|rest| rest.split('.').any(|part| part == std::env::consts::DLL_EXTENSION))
}

/// The release in ONNX Runtime's build information, `... git-branch=rel-1.24.1, ...`; not every release says it there,
/// but files are named after it, `libonnxruntime.so.1.31.1`.
fn version(build_info: &str, library: &Path) -> String {
    let built = build_info.split_once("git-branch=rel-").and_then(|(_, rest)| rest.split(',').next());
    let name = library.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = || name.split_once(".so.").map(|(_, version)| version);
    built.or_else(named).unwrap_or("of an unknown version").to_owned()
}

/// One level below ONNX Runtime's own for what it calls information: it writes pages of it per session.
fn log(level: LogLevel, location: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", location, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_its_name() {
        for (name, expected) in [
            ("libonnxruntime.so", true),
            ("libonnxruntime.so.1.24.1", true),
            ("libonnxruntime_providers_shared.so", false),
            ("libonnxruntime.txt", false),
            ("onnxruntime.so", false),
        ] {
            assert_eq!(is_library(name), expected && cfg!(target_os = "linux"), "{name}");
        }
    }

    #[test]
    fn the_variable_goes_before_the_executable_and_the_build() {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let (named, adjacent, built) =
            (directory.path().join("named"), directory.path().join(name), directory.path().join("built"));
        let empty = directory.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        for file in [&named, &adjacent, &built] {
            std::fs::write(file, "").unwrap();
        }
        let find = |variable: Option<&Path>, beside, built| {
            locate(&Places { variable: variable.map(|path| path.as_os_str().to_owned()), beside, built })
        };
        assert_eq!(find(Some(&named), directory.path(), Some(&built)), Ok(named.clone()));
        assert_eq!(find(None, directory.path(), Some(&built)), Ok(adjacent));
        assert_eq!(find(None, &empty, Some(&built)), Ok(built.clone()));

        let message = find(Some(&empty), directory.path(), None).unwrap_err();
        assert!(message.starts_with("ORT_DYLIB_PATH is"), "{message}");
        let message = find(None, &empty, Some(&empty)).unwrap_err();
        assert!(message.contains("set ORT_DYLIB_PATH to the file"), "{message}");
    }

    #[test]
    fn the_version_is_read_from_the_build_information_or_the_name() {
        let info = "ORT Build Info: git-branch=rel-1.24.1, git-commit-id=b5963e82c8, build type=Release";
        assert_eq!(version(info, Path::new("libonnxruntime.so.1")), "1.24.1");
        let info = "ORT Build Info: git-branch=HEAD, git-commit-id=6af1a932e, build type=Release";
        assert_eq!(version(info, Path::new("/lib/libonnxruntime.so.1.31.1")), "1.31.1");
        assert_eq!(version(info, Path::new("/lib/libonnxruntime.so")), "of an unknown version");
    }
}
