# Sourced: builds the simulation around changed copies of src/scheduler. The scheduler needs the standard library
# alone, so rustc compiles it in seconds.

# A copy of what the simulation needs of clipd, in a new directory.
copy_scheduler() {
    mkdir -p "$1"
    cp -r src/scheduler src/class.rs src/clock.rs src/modality.rs "$1"
    rm -r "$1/scheduler/tests" "$1/scheduler/tests.rs"
    echo "pub mod class; pub mod clock; pub mod modality; pub mod scheduler;" > "$1/lib.rs"
}

# Changes the copy in a directory by a diff.
change_scheduler() {
    patch --quiet --fuzz=0 --strip=1 --directory="$1/scheduler" < "$2"
}

# Makes the program `sim` in the directory of a copy. The scheduler's own assertions are off: what is asked is what the
# checkers see.
build_simulation() {
    local compile=(rustc --edition 2024 -C opt-level=1 -C debug-assertions=off -A warnings)
    "${compile[@]}" --crate-type rlib --crate-name clipd "$1/lib.rs" -o "$1/libclipd.rlib" &&
    "${compile[@]}" --test --crate-name sim tests/sim/main.rs --extern "clipd=$1/libclipd.rlib" -o "$1/sim"
}
