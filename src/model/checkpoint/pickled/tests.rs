use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// A pickle as `torch.save` writes it, one part after the other.
#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    fn op(mut self, bytes: &[u8]) -> Pickle {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Pickle {
        self.op(b"X").op(&u32::try_from(text.len()).unwrap().to_le_bytes()).op(text.as_bytes())
    }

    fn global(self, name: &str) -> Pickle {
        self.op(format!("c{}\n", name.replace(' ', "\n")).as_bytes())
    }

    fn integer(self, integer: i32) -> Pickle {
        self.op(b"J").op(&integer.to_le_bytes())
    }

    fn integers(self, integers: &[i32]) -> Pickle {
        integers.iter().fold(self.op(b"("), |pickle, integer| pickle.integer(*integer)).op(b"t")
    }

    fn tensor(self, kind: &str, key: &str, offset: i32, shape: &[i32], strides: &[i32]) -> Pickle {
        self.global("torch._utils _rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global(&format!("torch {kind}"))
            .text(key)
            .text("cpu")
            .integer(100)
            .op(b"tQ")
            .integer(offset)
            .integers(shape)
            .integers(strides)
            .op(b"\x89")
            .global("collections OrderedDict")
            .op(b")RtR")
    }

    /// `pickle` as the only tensor of a dictionary.
    fn of(name: &str, pickle: impl FnOnce(Pickle) -> Pickle) -> Pickle {
        pickle(Pickle::new().op(b"}(").text(name)).op(b"u.")
    }
}

fn archive(entries: &[(&str, &[u8])]) -> Box<dyn Source> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(*name, stored).unwrap();
        writer.write_all(bytes).unwrap();
    }
    Box::new(writer.finish().unwrap())
}

fn read(pickle: &Pickle, storage: &[u8]) -> Result<Tensors, String> {
    let entries: [(&str, &[u8]); 3] =
        [("archive/data.pkl", &pickle.0), ("archive/byteorder", b"little"), ("archive/data/0", storage)];
    tensors(&mut archive(&entries))
}

#[track_caller]
fn refused(pickle: &Pickle, storage: &[u8], says: &str) {
    let error = read(pickle, storage).unwrap_err();
    assert!(error.contains(says) && !error.contains('\n') && error.len() < 1000, "{error}");
}

#[test]
fn tensors_are_where_the_pickle_says() {
    let pickle = Pickle::of("a", |pickle| pickle.tensor("HalfStorage", "0", 2, &[2, 3], &[3, 1]));
    let found = read(&pickle, &[0; 16]).unwrap();
    let Extent { element, shape, strides, .. } = &found["a"];
    assert_eq!((element, &shape[..], strides), (&Element::F16, &[2, 3][..], &None));
    let transposed = Pickle::of("a", |pickle| pickle.tensor("FloatStorage", "0", 0, &[3, 2], &[1, 3]));
    assert_eq!(read(&transposed, &[0; 24]).unwrap()["a"].strides, Some(vec![1, 3]));
    let integers = Pickle::of("a", |pickle| pickle.tensor("LongStorage", "0", 0, &[1], &[1]));
    assert_eq!(read(&integers, &[0; 8]).unwrap()["a"].element, Element::Other("Long".to_owned()));
}

#[test]
fn weights_are_found_beside_an_optimizer() {
    let tensor = |pickle: Pickle| pickle.tensor("FloatStorage", "0", 0, &[1], &[1]);
    for wrapper in WRAPPERS {
        let pickle =
            Pickle::new().op(b"}(").text("epoch").integer(3).text("optimizer").op(b"}(").text("state");
        let pickle = tensor(pickle).op(b"u").text(wrapper).op(b"}(").text("a");
        let found = read(&tensor(pickle).op(b"uu."), &[0; 4]).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
    }
}

#[test]
fn what_a_file_does_not_have_is_refused() {
    let pickle = |shape: &[i32], strides: &[i32], key: &str| {
        Pickle::of("a", |pickle| pickle.tensor("FloatStorage", key, 1, shape, strides))
    };
    refused(&pickle(&[2, 3], &[3, 1], "0"), &[0; 24], "tensor a: data/0 has 24 bytes, and it needs 28");
    refused(&pickle(&[2], &[1], "1"), &[0; 24], "tensor a: its data/1 is missing");
    refused(&pickle(&[i32::MAX; 4], &[i32::MAX; 4], "0"), &[0; 24], "larger than can be");
    refused(&pickle(&[-1], &[1], "0"), &[0; 24], "-1 is no size");
    refused(&pickle(&[2], &[1, 1], "0"), &[0; 24], "other axes");
    refused(&pickle(&[1; 17], &[1; 17], "0"), &[0; 24], "at most 16");
}

/// What files that attack use to run something, and what honest training leaves and needs a call: module and name.
const FORBIDDEN: &str = "
    os system
    os popen
    os execv
    os posix_spawn
    os remove
    os putenv
    posix system
    nt system
    pty spawn
    subprocess Popen
    subprocess run
    subprocess call
    subprocess check_output
    subprocess getoutput
    commands getoutput
    asyncio create_subprocess_shell
    multiprocessing Process
    concurrent.futures ProcessPoolExecutor
    builtins eval
    builtins exec
    builtins compile
    builtins open
    builtins __import__
    builtins getattr
    builtins setattr
    builtins globals
    builtins input
    builtins breakpoint
    __builtin__ eval
    __builtin__ apply
    importlib import_module
    importlib.util spec_from_file_location
    runpy run_path
    runpy run_module
    code interact
    types CodeType
    types FunctionType
    operator attrgetter
    operator methodcaller
    functools partial
    functools reduce
    timeit timeit
    bdb Bdb
    pdb run
    cProfile run
    trace Trace
    pickle loads
    pickle.Unpickler load
    dill loads
    marshal loads
    shelve open
    copyreg _reconstructor
    copyreg __newobj__
    ctypes CDLL
    ctypes.util find_library
    socket create_connection
    http.client HTTPSConnection
    urllib.request urlopen
    requests.api get
    webbrowser open
    smtplib SMTP
    shutil rmtree
    tempfile mkstemp
    pathlib Path
    linecache getline
    sys exit
    signal signal
    site main
    pip main
    idlelib.pyshell main
    numpy load
    numpy.testing._private.utils runstring
    numpy.f2py.crackfortran getlincoef
    pandas read_pickle
    torch load
    torch.hub load
    torch.jit load
    torch._utils _rebuild_qtensor
    torch._utils _rebuild_device_tensor_from_numpy
    torch.storage _load_from_bytes
    torch.serialization load
    torch.fx.graph_module reduce_graph_module
    torch.utils.cpp_extension load
    torch.utils._config_module load_config
    torch.distributed.rpc rpc_sync
    collections namedtuple
    collections OrderedDict.__init__
    transformers.training_args TrainingArguments
    omegaconf.dictconfig DictConfig
    __main__ Model
";

/// None of these runs, and each is an error of a line that names it.
#[test]
fn a_hostile_pickle_calls_nothing() {
    let named =
        FORBIDDEN.trim().lines().map(|line| line.trim().split_once(' ').expect("a module and a name"));
    for (module, name) in named.chain([("evil", "\u{1b}[2Jname")]) {
        let says = format!("{module}.{name}").escape_debug().to_string();
        // By its name in the program, and from the stack.
        let program = Pickle::new().global(&format!("{module} {name}")).text("echo");
        refused(&program.op(b"\x85R."), &[], &says);
        refused(&Pickle::new().text(module).text(name).op(b"\x93)R."), &[], &says);
    }
    refused(&Pickle::new().text("a").op(b")R."), &[], "it calls what it may not");
    refused(
        &Pickle::new().global("collections OrderedDict").integers(&[1]).op(b"R."),
        &[],
        "what it may not",
    );
    refused(&Pickle::new().op(b"(i\n\n."), &[], "opcode 0x69");
    refused(&Pickle::new().global(&format!("torch {}Storage", "x".repeat(300))), &[], "more than 256 bytes");
}

#[test]
fn broken_programs_end_with_a_reason() {
    for (program, says) in [
        (&b""[..], "ends in the middle"),
        (b".", "not on its stack"),
        (b"X\xff\xff\xff\xff", "ends in the middle"),
        (b"(0.", "not on its stack"),
        (b"t.", "not on its stack"),
        (b")Na.", "what is no list"),
        (b"NNs.", "not on its stack"),
        (b"}(Nu.", "a key has no value"),
        (b"h\x00.", "never put away"),
        (b"q\x00.", "not on its stack"),
        (b"NQ.", "no storage"),
        (b"ccollections", "ends in the middle"),
    ] {
        let error = machine::run(program).err().unwrap_or_else(|| panic!("{program:?}"));
        assert!(error.contains(says), "{program:?}: {error}");
    }
    let nothing = [&[b'N'; 1_000_000][..], b"."].concat();
    assert!(machine::run(&nothing).err().unwrap().contains("opcodes"));
}

/// Lists in lists in lists, a list in itself, and a memo that doubles with each line.
#[test]
fn depth_cycles_and_doubling_cost_nothing() {
    let deep = [&b"]".repeat(200_000)[..], &b"a".repeat(199_999), b"."].concat();
    machine::run(&deep).unwrap();
    machine::run(b"]q\x00h\x00a.").unwrap();
    let doubling = b"(h\x00h\x00tq\x00".repeat(100);
    machine::run(&[&b"]q\x00"[..], &doubling, b"."].concat()).unwrap();
}

#[test]
fn whatever_a_program_is_it_ends() {
    let good = Pickle::of("a", |pickle| pickle.tensor("FloatStorage", "0", 0, &[2], &[1])).0;
    machine::run(&good).unwrap();
    for at in 0..good.len() {
        let _ = machine::run(&good[..at]);
        for byte in 0..=255 {
            let mut changed = good.clone();
            changed[at] = byte;
            let _ = read(&Pickle(changed), &[0; 8]);
        }
    }
}

#[test]
fn other_files_are_told_apart() {
    let says = |mut source: Box<dyn Source>, says: &str| {
        let error = tensors(&mut source).unwrap_err();
        assert!(error.contains(says), "{error}");
    };
    says(Box::new(Cursor::new(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec())), "before PyTorch 1.6");
    says(
        Box::new(Cursor::new(b"version https://git-lfs.github.com/spec/v1\n".to_vec())),
        "no file of torch.save",
    );
    says(archive(&[("archive/other", b"")]), "no data.pkl");
    says(archive(&[("a/data.pkl", b"N."), ("a/constants.pkl", b"")]), "TorchScript");
    says(archive(&[("a/data.pkl", b"N."), ("a/byteorder", b"big")]), "big-endian");
    assert_eq!(
        tensors(&mut archive(&[("a/data.pkl", b"N.")])),
        Ok(Tensors::new()),
        "which then lacks every tensor"
    );
}

/// Files that made a reader panic once.
#[test]
fn what_fuzzing_found_is_refused() {
    let found = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/found");
    let files: Vec<_> = std::fs::read_dir(found).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        let mut source: Box<dyn Source> = Box::new(Cursor::new(std::fs::read(&file).unwrap()));
        assert!(tensors(&mut source).is_err(), "{}", file.display());
    }
}
