//! The options that a reader gives to the output plugin (`pg_recvlogical -o name=value`).
#![forbid(unsafe_code)]

use std::fmt;

/// The checked options of one reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {}

/// Why options were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// There is no option of this name.
    Unknown(String),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "bemi_decoder has no option \"{name}\""),
        }
    }
}

impl OptionError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "This version of bemi_decoder takes no options.",
        }
    }
}

impl Options {
    /// Reads options from pairs of name and value.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Result<Self, OptionError> {
        match pairs.into_iter().next() {
            Some((name, _)) => Err(OptionError::Unknown(name.to_owned())),
            None => Ok(Self {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_options_are_refused_by_name() {
        assert_eq!(Options::parse([]), Ok(Options {}));
        let error = Options::parse([("add-tabels", Some("public.todo"))]).unwrap_err();
        assert_eq!(error.to_string(), "bemi_decoder has no option \"add-tabels\"");
    }
}
