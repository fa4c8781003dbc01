//! The project itself, its key pairs and its images.

use reqwest::Method;
use serde_json::json;

use super::call::Call;
use super::client::Clo;
use super::error::CloError;
use super::model::{Image, Keypair, Project};

impl Clo {
    /// The project. Shows that the token works and that the project is in good standing.
    pub async fn project_detail(&self) -> Result<Project, CloError> {
        let path = format!("/v2/projects/{}/detail", self.project());
        self.result(Call::new(
            Method::GET,
            format!("read project {}", self.project()),
            path,
        ))
        .await
    }

    /// All key pairs of the project.
    pub async fn list_keypairs(&self) -> Result<Vec<Keypair>, CloError> {
        self.list(
            "list key pairs",
            &format!("/v2/projects/{}/keypairs", self.project()),
        )
        .await
    }

    /// Registers a public key (OpenSSH line) and returns its id. Look for the name first.
    pub async fn create_keypair(&self, name: &str, public_key: &str) -> Result<String, CloError> {
        let path = format!("/v2/projects/{}/keypairs", self.project());
        let body = json!({ "name": name, "public_key": public_key });
        self.created(Call::new(Method::POST, format!("create key pair {name}"), path).json(&body))
            .await
    }

    /// All images that servers of the project can be made from.
    pub async fn list_images(&self) -> Result<Vec<Image>, CloError> {
        self.list(
            "list images",
            &format!("/v2/projects/{}/images", self.project()),
        )
        .await
    }
}
