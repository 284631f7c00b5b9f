"""Signed maps of the emotion readout R, in nats, whose values add up.

R is the log-probability of the true emotion among the emotion prompts (`clip/readout.py`). In every map a value above 0
means that this place raises R, and a value below 0 that it lowers R: there the picture misleads the model.

    occlusion               what R loses when a window is hidden, spread over the patches of the window
    integrated_gradients    R(image) - R(baseline), divided among pixels or tokens
    shapley                 R(image) - R(hidden image), divided among face, bust and rest
    last_attention          first order: what each patch sends to the class token in the last attention
    latent_maps             what latents, or an edit, do to R at each patch
    arm_maps                all these maps of some images in the original and in the edited model
    regions                 scores of these maps: the sum in a region, its share of the harm, a control region
    drawing                 the figure of the stage `map_readout`

Captum has integrated gradients, occlusion and Shapley values, too. They are a few lines each and are written here, so
that the project needs no further package. They also run in an edited model and count in whole patches.
"""
