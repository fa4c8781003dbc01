//! The store over the sandbox's S3 server.

use e2e::store_lab::Kind;

e2e::store_conformance!(Kind::Sandbox);
