//! Why a download did not come to its end.

use std::io;
use std::path::PathBuf;

/// Why a download did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server refuses; asking again does not help.
    #[error("download {url}: the server says {status}")]
    Status {
        /// The URL without its query.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server wants us to go elsewhere: a presigned URL is for one place.
    #[error("download {url}: the server redirects, which is not followed")]
    Redirect {
        /// The URL without its query.
        url: String,
    },
    /// The object is not the one that we began with.
    #[error("download {url}: the object changed meanwhile")]
    Changed {
        /// The URL without its query.
        url: String,
    },
    /// The registry does not know us, or does not let us have it.
    #[error("download {url}: the registry says {status}")]
    Denied {
        /// The URL without its query.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The object is not as long as it must be.
    #[error("download {url}: it is not {bytes} bytes long, as the image says")]
    Size {
        /// The URL without its query.
        url: String,
        /// The length that it must have.
        bytes: u64,
    },
    /// The file that says who we are cannot be used.
    #[error("read the credentials in {}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object is larger than any image may be.
    #[error("download {url}: {bytes} bytes are more than an image may have")]
    TooLarge {
        /// The URL without its query.
        url: String,
        /// The length that the server says.
        bytes: u64,
    },
    /// The server was tried often enough.
    #[error("download {url}: no byte came in {tries} tries")]
    GaveUp {
        /// The URL without its query.
        url: String,
        /// How often it was tried.
        tries: u32,
        /// What went wrong the last time.
        #[source]
        source: io::Error,
    },
    /// The certificates cannot be read.
    #[error("read the certificates in {}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came cannot be saved.
    #[error("save the download in {}", path.display())]
    Save {
        /// The part file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
