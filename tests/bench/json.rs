//! The writers that a document is made with, beside serde_json and beside what one would write first:
//! `cargo bench --no-default-features --bench json`.
#![allow(missing_docs, reason = "criterion's macros make functions without")]
use std::hint::black_box;

use bemi::document::json::{self, Charset, Json};
use bemi::document::numeric::numeric;
use bemi::document::{time, uuid};
use criterion::{Criterion, criterion_group, criterion_main};

/// A character at a time.
fn naive(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            c if c < ' ' => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn strings(c: &mut Criterion) {
    let texts = [
        ("short", "user12345@example.com".to_owned()),
        ("quotes", "a \"quoted\" line\n".repeat(10)),
        ("long", "plain text without anything special ".repeat(1000)),
        ("beyond ascii", "Crème brûlée, 日本語 ".repeat(50)),
    ];
    for (name, text) in &texts {
        let mut group = c.benchmark_group(format!("string, {name}"));
        let mut out = Json::new(Charset::Utf8);
        group.bench_function("bemi", |b| {
            b.iter(|| {
                out.truncate(0);
                out.string(black_box(text.as_bytes()))
            });
        });
        let mut plain = Vec::new();
        group.bench_function("serde_json", |b| {
            b.iter(|| {
                plain.clear();
                serde_json::to_writer(&mut plain, black_box(text))
            });
        });
        group.bench_function("naive", |b| {
            b.iter(|| {
                plain.clear();
                naive(&mut plain, black_box(text));
            });
        });
        group.finish();
    }
}

fn values(c: &mut Criterion) {
    let mut out = Vec::with_capacity(1000);
    let mut bench = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        c.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                write(black_box(&mut out));
            });
        });
    };
    bench("timestamptz", &|out| time::push_timestamptz(out, 848_489_935_720_782));
    bench("uuid", &|out| uuid::push(out, &[0xa5; 16]));
    // 1234.56, with the short header.
    let stored: Vec<u8> = [0x8100u16, 1234, 5600].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bench("numeric", &|out| _ = numeric(out, &stored));
    bench("numeric by format!", &|out| out.extend_from_slice(format!("{}", 1234.56).as_bytes()));
    let document = r#"{"k": 1, "note": "line\ntwo", "nested": {"x": [1, 2, {"y": null}]}}"#;
    bench("compact json", &|out| _ = json::compact(out, document.as_bytes()));
}

criterion_group!(benches, strings, values);
criterion_main!(benches);
