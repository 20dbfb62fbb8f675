//! Adopting the XMesh: the one of our name is ours if it names our controller, and is created once if there is none. It must not change one that exists.
//!
//! "Created once" is once in the life of a process: a replica creates it only if it never saw one of that name. So an XMesh that a user deletes stays
//! deleted (the mesh then runs with the settings of an empty one) until a replica is started anew and leads.

use super::{ClusterStatuses, write};
use crate::{inventory::Kind, leader::Leadership, plan::CONTROLLER_NAME};
use kube::Client;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// How soon is looked again whether there is something to do: the first plan, the CRD.
const LOOK: Duration = Duration::from_secs(2);

/// How soon it is tried again if it is not allowed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Creates the XMesh if it is absent and this replica leads. Ends when there is or was one.
pub async fn adopt(client: Client, statuses: Arc<ClusterStatuses>, mut leadership: Leadership) {
    let name = statuses.mesh.clone();
    loop {
        leadership.gained().await;
        let (planned, seen) = {
            let state = statuses.state.lock();
            (state.planned, state.mesh_seen)
        };
        if seen {
            return;
        }
        if !planned {
            sleep(LOOK).await;
            continue;
        }
        let object = json!({
            "apiVersion": Kind::XMesh.api_version(),
            "kind": Kind::XMesh.as_str(),
            "metadata": {"name": name},
            "spec": {"controllerName": CONTROLLER_NAME},
        });
        let request = http::Request::post(format!("{}?fieldManager={}", write::meshes(), write::FIELD_MANAGER))
            .header(http::header::CONTENT_TYPE, "application/json");
        match write::send(&client, request, object.to_string().into_bytes()).await {
            Ok(_) => {
                tracing::info!("created the XMesh {name}");
                return;
            }
            // Somebody was faster.
            Err((409, _)) => return,
            // There is no such kind (yet).
            Err((404, _)) => sleep(LOOK).await,
            Err((_, reason)) => {
                tracing::warn!("the XMesh {name} cannot be created: {reason}");
                sleep(PATIENCE).await;
            }
        }
    }
}
