//! The store over MiniStack, an S3 server that shares no code with ours (tests/ministack).

use e2e::store_lab::Kind;

e2e::store_conformance!(Kind::MiniStack);
