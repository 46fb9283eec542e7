//! The rules of a tracked table, as they travel in the arguments of its trigger: `ignore=column` and `mask=column`, one
//! argument for each column, and `identity=…` for the replica identity to put back when tracking ends. Behind the `=`
//! everything belongs to the name, so no name needs quotes. `numbers=16384:2,5` says once more which columns are
//! masked: the OID of the table, and their numbers, which stay as they are when a column is renamed.
#![forbid(unsafe_code)]

/// A kind of rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An UPDATE that changes only such columns is not shown.
    Ignore,
    /// The values of such a column are never shown.
    Mask,
    /// The replica identity that was there before: `default`, `nothing`, `full`, or `index:` and the index's name.
    Identity,
    /// The numbers of the columns that are masked, behind the OID of the table they belong to.
    Numbers,
    /// What none of these is: nobody knows what it means.
    Unknown,
}

impl Kind {
    /// By its name.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"ignore" => Some(Self::Ignore),
            b"mask" => Some(Self::Mask),
            b"identity" => Some(Self::Identity),
            b"numbers" => Some(Self::Numbers),
            b"unknown" => Some(Self::Unknown),
            _ => None,
        }
    }
}

/// The kind of an argument, and what it says: a name in the database's encoding, or all of an unknown one.
pub fn rule(argument: &[u8]) -> (Kind, &[u8]) {
    let Some(at) = argument.iter().position(|byte| *byte == b'=') else { return (Kind::Unknown, argument) };
    let value = &argument[at + 1..];
    match Kind::named(&argument[..at]) {
        None | Some(Kind::Unknown) => (Kind::Unknown, argument),
        Some(Kind::Identity) if !is_identity(value) => (Kind::Unknown, argument),
        Some(Kind::Numbers) if numbers(value).is_none() => (Kind::Unknown, argument),
        Some(kind) => (kind, value),
    }
}

fn is_identity(value: &[u8]) -> bool {
    matches!(value, b"default" | b"nothing" | b"full")
        || value.strip_prefix(b"index:").is_some_and(|name| !name.is_empty())
}

/// The OID of a table and the numbers of its columns, as [`Kind::Numbers`] holds them. None if they are malformed.
pub fn numbers(value: &[u8]) -> Option<(u32, impl Iterator<Item = i16>)> {
    fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    }
    let (relation, list) = std::str::from_utf8(value).ok()?.split_once(':')?;
    let relation: u32 = number(relation).filter(|relation| *relation > 0)?;
    let columns = list.split(',').map(number::<i16>);
    let is_valid = columns.clone().all(|column| column.is_some_and(|column| column > 0));
    is_valid.then(|| (relation, columns.flatten()))
}

/// Whether the arguments of a trigger of a table, by its OID, mask a column by its number.
pub fn mask_number<'a>(arguments: impl IntoIterator<Item = &'a [u8]>, relation: u32, column: i16) -> bool {
    arguments.into_iter().any(|argument| match rule(argument) {
        (Kind::Numbers, value) => numbers(value)
            .filter(|(table, _)| *table == relation)
            .is_some_and(|(_, mut columns)| columns.any(|number| number == column)),
        _ => false,
    })
}

/// The arguments of a trigger as `pg_trigger.tgargs` holds them: each with a NUL behind it.
pub fn arguments(stored: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = stored.strip_suffix(b"\0");
    whole.into_iter().flat_map(|arguments| arguments.split(|byte| *byte == 0))
}

/// What a table's rules say of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColumnRules {
    /// Its changes alone do not show an UPDATE.
    pub is_ignored: bool,
    /// Its values are not shown.
    pub is_masked: bool,
}

impl ColumnRules {
    /// What holds by these rules of a partition and those of a table above it: nothing is shown that one of them masks.
    pub fn under(self, above: Self) -> Self {
        Self { is_masked: self.is_masked || above.is_masked, ..self }
    }
}

/// What the arguments of a trigger say of a column, both in the database's encoding.
pub fn of_column<'a>(arguments: impl IntoIterator<Item = &'a [u8]>, column: &[u8]) -> ColumnRules {
    let mut found = ColumnRules::default();
    for argument in arguments {
        match rule(argument) {
            (Kind::Ignore, name) => found.is_ignored |= name == column,
            (Kind::Mask, name) => found.is_masked |= name == column,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arguments_say_what_they_are() {
        assert_eq!(rule(b"ignore=updated_at"), (Kind::Ignore, &b"updated_at"[..]));
        assert_eq!(rule(b"mask=a=b"), (Kind::Mask, &b"a=b"[..]));
        assert_eq!(rule(b"identity=index:todo_pkey"), (Kind::Identity, &b"index:todo_pkey"[..]));
        assert_eq!(rule(b"numbers=16400:3,15"), (Kind::Numbers, &b"16400:3,15"[..]));
        for unknown in [
            &b"mask"[..],
            b"numbers=",
            b"numbers=16400",
            b"numbers=16400:",
            b"numbers=:3",
            b"numbers=16400:3,",
            b"numbers=16400:-3",
            b"numbers=16400:3:5",
            b"",
            b"=x",
            b"identity=",
            b"identity=index:",
            b"identity=full; DROP TABLE t",
            b"Mask=x",
            b" mask=x",
            b"unknown=x",
        ] {
            assert_eq!(rule(unknown), (Kind::Unknown, unknown));
        }
        assert_eq!(rule(b"numbers=16384:3,5"), (Kind::Numbers, &b"16384:3,5"[..]));
        for malformed in [
            "",
            "16384",
            "16384:",
            ":3",
            "16384:3,",
            "16384:0",
            "0:3",
            "16384:-3",
            "16384: 3",
            "+1:3",
            "16384:3;5",
            "4294967296:1",
            "1:32768",
            "1:1:1",
        ] {
            let argument = format!("numbers={malformed}");
            assert_eq!(rule(argument.as_bytes()), (Kind::Unknown, argument.as_bytes()));
        }
        assert_eq!(arguments(b"").count(), 0);
        assert_eq!(arguments(b"\0").collect::<Vec<_>>(), [b""]);
        assert_eq!(arguments(b"a\0\0b\0").collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
    }

    #[test]
    fn numbers_count_for_their_table_only() {
        let arguments = [&b"mask=a"[..], b"numbers=7:2,32767", b"numbers=8:3", b"numbers=7:x,4"];
        let masks = |relation, column| mask_number(arguments, relation, column);
        assert!(masks(7, 2) && masks(7, 32767) && masks(8, 3));
        assert!(!masks(7, 3) && !masks(8, 2) && !masks(7, 4) && !masks(9, 2));
    }

    proptest! {
        #[test]
        fn any_name_comes_back(names in prop::collection::vec(("ignore|mask", prop::collection::vec(1u8.., 0..70)), 0..9)) {
            let mut stored = Vec::new();
            for (kind, name) in &names {
                stored.extend([kind.as_bytes(), b"=", name, b"\0"].concat());
            }
            let found: Vec<_> = arguments(&stored).map(rule).collect();
            let expected: Vec<_> = names.iter().map(|(kind, name)| (Kind::named(kind.as_bytes()).unwrap(), &name[..])).collect();
            prop_assert_eq!(found, expected);
            for (_, column) in &names {
                let has = |kind: &str| names.iter().any(|(k, name)| k == kind && name == column);
                let found = of_column(arguments(&stored), column);
                prop_assert_eq!((found.is_ignored, found.is_masked), (has("ignore"), has("mask")));
            }
        }

        #[test]
        fn any_bytes_are_read(stored: Vec<u8>) {
            for argument in arguments(&stored) {
                let (kind, name) = rule(argument);
                prop_assert!(name.len() < argument.len() || kind == Kind::Unknown);
            }
        }
    }
}
