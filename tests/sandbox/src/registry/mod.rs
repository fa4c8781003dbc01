//! A registry of container images, and images to push into it.

mod image;
mod server;

pub use image::{Image, Pushed, tar};
pub use server::{Door, Fault, PASSWORD, Registry, Request, alice};
