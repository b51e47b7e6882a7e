//! Tells cargo that the migrations, which a macro takes in by their folder, are part of the program.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
