//! Tells cargo that the migrations are part of the program. A macro includes them by their folder, which cargo does not
//! see.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
