//! What is peculiar to `MySQL` and `MariaDB`.

pub mod product;
