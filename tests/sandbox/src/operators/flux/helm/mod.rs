//! helm-controller: releases of charts, installed, upgraded, waited for, and mended as the release says.

mod act;
mod controller;
mod draft;
mod release;
mod values;

pub(super) use controller::Helm;
