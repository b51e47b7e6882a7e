//! Statements with values, in the same form for every kind of database.

use sqlx::Error;
use sqlx::error::BoxDynError;

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Number(Option<i64>),
    Text(Option<&'a str>),
    /// Text of a column that is compared byte by byte.
    Name(&'a str),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

/// A kind of database whose statements take [`Value`]s.
pub(crate) trait Execute: sqlx::Database {
    /// Adds a value to the arguments of a statement.
    fn bind(arguments: &mut Self::Arguments, value: &Value<'_>) -> Result<(), BoxDynError>;

    /// Executes a statement and returns the number of rows that it has changed.
    fn execute(
        conn: &mut Self::Connection,
        text: &'static str,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// The first column of the rows that a query returns.
    fn numbers(
        conn: &mut Self::Connection,
        text: &'static str,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Vec<i64>, Error>> + Send;

    /// These values as the arguments of a statement.
    fn arguments<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Result<Self::Arguments, Error> {
        let mut arguments = <Self::Arguments as Default>::default();
        for value in values {
            Self::bind(&mut arguments, &value).map_err(Error::Encode)?;
        }
        Ok(arguments)
    }
}
