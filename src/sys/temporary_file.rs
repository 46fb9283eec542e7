//! Temporary files.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Creates an empty file among the server's temporary ones, without a name, so that it disappears when it is closed.
pub fn create() -> io::Result<File> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // A server process works in its data directory.
    let folder = Path::new("base/pgsql_tmp");
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // If this process ends here, the server removes the file when it starts: it knows it by the beginning of its name.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("pgsql_tmp{}.bemi{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}
